//! Which lines of a batch wait for which: those that may affect each other take effect in order.

use std::collections::HashMap;

use tokio::sync::watch;

use crate::operation::Order;

/// Things remembered as in use; finished ones are forgotten when there are more.
const REMEMBERED_MAX: usize = 4 * super::IN_FLIGHT_MAX;

/// What the lines under way have in use.
#[derive(Default)]
pub(super) struct UnderWay {
    last_of: HashMap<u64, watch::Receiver<bool>>,
    since_barrier: Vec<watch::Receiver<bool>>,
    barrier: Option<watch::Receiver<bool>>,
}

impl UnderWay {
    /// Enters a line: the earlier ones that it waits for, and what tells that it has ended.
    pub(super) fn enter(&mut self, order: Order) -> (Vec<watch::Receiver<bool>>, watch::Sender<bool>) {
        let (done, ended) = watch::channel(false);
        self.forget_ended();
        let mut before: Vec<_> = self.barrier.iter().cloned().collect();
        match order {
            Order::Everything => {
                before.append(&mut self.since_barrier);
                self.last_of.clear();
                self.barrier = Some(ended);
            }
            Order::Keys(mut keys) => {
                // A line that names one thing twice does not wait for itself.
                keys.sort_unstable();
                keys.dedup();
                before.extend(keys.into_iter().filter_map(|key| self.last_of.insert(key, ended.clone())));
                self.since_barrier.push(ended);
            }
        }
        (before, done)
    }

    fn forget_ended(&mut self) {
        let running = |receiver: &watch::Receiver<bool>| !*receiver.borrow() && receiver.has_changed().is_ok();
        if self.barrier.as_ref().is_some_and(|barrier| !running(barrier)) {
            self.barrier = None;
        }
        if self.since_barrier.len() > REMEMBERED_MAX {
            self.since_barrier.retain(running);
        }
        if self.last_of.len() > REMEMBERED_MAX {
            self.last_of.retain(|_, receiver| running(receiver));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_waits_for_earlier_ones_and_never_for_itself() {
        let mut under_way = UnderWay::default();
        let (before, _first) = under_way.enter(Order::Keys(vec![1, 2, 1]));
        assert_eq!(before.len(), 0);
        let (before, _second) = under_way.enter(Order::Keys(vec![2, 3]));
        assert_eq!(before.len(), 1);
        let (before, _third) = under_way.enter(Order::Everything);
        assert_eq!(before.len(), 2);
        let (before, _fourth) = under_way.enter(Order::Keys(vec![4]));
        assert_eq!(before.len(), 1);
    }
}

//! Whether work goes on. What is watched is judged by what others can see of it (a checkpoint, a head, a message) and by the clock, in a
//! task of its own: a loop that hangs cannot say so itself.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Judges one thing: without progress for a while, although there is something to do, it is stuck.
#[derive(Debug)]
pub struct Watchdog {
    what: &'static str,
    patience: Duration,
    progress: Option<i64>,
    waits: bool,
    /// The last moment at which there was progress, or nothing to do.
    well_at: Instant,
    verdict: watch::Sender<Option<String>>,
}

/// What the watchdog found, for readiness.
#[derive(Debug, Clone)]
pub struct Verdict {
    stuck: watch::Receiver<Option<String>>,
}

impl Verdict {
    /// Whether it goes on, or has nothing to do.
    ///
    /// # Errors
    /// In a sentence, since when it does not.
    pub fn check(&self) -> Result<(), String> {
        self.stuck.borrow().clone().map_or(Ok(()), Err)
    }
}

impl Watchdog {
    /// A watchdog of `what`, such as `relay`, that waits for so long.
    pub fn new(what: &'static str, patience: Duration, now: Instant) -> (Self, Verdict) {
        let (verdict, stuck) = watch::channel(None);
        (Self { what, patience, progress: None, waits: false, well_at: now, verdict }, Verdict { stuck })
    }

    /// Takes in a look: any number that changes with progress, and whether something waits. Where nothing could be seen there was no
    /// progress, and what waited waits. Gives whether it is stuck, and logs when that changes.
    pub fn look(&mut self, now: Instant, seen: Option<(i64, bool)>) -> bool {
        if let Some((progress, waits)) = seen {
            // What waits only now has not waited since the last look.
            if !waits || !self.waits || self.progress != Some(progress) {
                self.well_at = now;
            }
            (self.progress, self.waits) = (Some(progress), waits);
        } else if !self.waits {
            self.well_at = now;
        }
        let since = now.saturating_duration_since(self.well_at);
        let stuck = since >= self.patience;
        let was_stuck = self.verdict.borrow().is_some();
        if stuck {
            let said =
                format!("the {} has made no progress for {} s although something waits", self.what, since.as_secs());
            self.verdict.send_replace(Some(said));
        } else if was_stuck {
            self.verdict.send_replace(None);
        }
        match (was_stuck, stuck) {
            (false, true) => tracing::error!(
                what = self.what,
                seconds = since.as_secs(),
                progress = self.progress,
                "stuck: no progress although something waits"
            ),
            (true, false) => tracing::info!(what = self.what, progress = self.progress, "not stuck any more"),
            _ => {}
        }
        stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn stuck_is_what_does_nothing_for_a_while_although_something_waits() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let (mut watchdog, verdict) = Watchdog::new("relay", PATIENCE, start);
        // Nothing to do, for however long.
        assert!(!watchdog.look(at(0), Some((5, false))));
        assert!(!watchdog.look(at(1_000), Some((5, false))));
        // Something comes: the time counts from now.
        assert!(!watchdog.look(at(1_001), Some((5, true))));
        assert!(!watchdog.look(at(1_060), Some((5, true))));
        assert!(watchdog.look(at(1_061), Some((5, true))));
        assert_eq!(verdict.check().unwrap_err(), "the relay has made no progress for 60 s although something waits");
        // A step is enough, though more waits.
        assert!(!watchdog.look(at(1_062), Some((6, true))));
        assert_eq!(verdict.check(), Ok(()));
        assert!(!watchdog.look(at(1_121), Some((6, true))));
        assert!(!watchdog.look(at(1_121), Some((7, true))));
    }

    #[test]
    fn what_cannot_be_seen_makes_no_progress() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let (mut watchdog, _) = Watchdog::new("sealer", PATIENCE, start);
        // Nothing is known to wait.
        assert!(!watchdog.look(at(100), None));
        assert!(!watchdog.look(at(101), Some((5, true))));
        assert!(!watchdog.look(at(160), None));
        assert!(watchdog.look(at(161), None));
        assert!(!watchdog.look(at(162), Some((5, false))));
        assert!(!watchdog.look(at(500), None));
    }

    /// Something new waits at every look, and is done by the next: nothing is stuck.
    #[test]
    fn backwards_is_progress_too() {
        let start = Instant::now();
        let (mut watchdog, _) = Watchdog::new("projection", PATIENCE, start);
        for second in 0..300 {
            let progress = if second % 2 == 0 { 10 } else { 9 };
            assert!(!watchdog.look(start + Duration::from_secs(second), Some((progress, true))));
        }
    }
}

//! How many feeds are open at the same time: of the process, and of one tenant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use service_kit::problem::{Code, Problem};
use uuid::Uuid;

/// Streams of the process.
pub(crate) const STREAMS_MAX: usize = 256;
/// Streams of one tenant.
pub(crate) const STREAMS_OF_TENANT_MAX: usize = 16;

/// The open streams of each tenant.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    open: Arc<Mutex<HashMap<Uuid, usize>>>,
}

/// The place of one stream, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    streams: Streams,
    tenant: Uuid,
}

impl Streams {
    /// Takes a place.
    ///
    /// # Errors
    /// `overloaded`, where there is none.
    pub(crate) fn take(&self, tenant: Uuid) -> Result<Place, Problem> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let own = open.get(&tenant).copied().unwrap_or(0);
        if all >= STREAMS_MAX || own >= STREAMS_OF_TENANT_MAX {
            let detail = format!(
                "{own} streams of this tenant are open, and {all} in all; at most {STREAMS_OF_TENANT_MAX} and {STREAMS_MAX} may be. \
                 Pages of JSON are always there"
            );
            return Err(Problem::new(Code::Overloaded, detail).retry_after(5));
        }
        open.insert(tenant, own + 1);
        Ok(Place { streams: self.clone(), tenant })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.tenant) {
            Some(count) if *count > 1 => *count -= 1,
            _ => _ = open.remove(&self.tenant),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_its_share_and_gets_places_back() {
        let streams = Streams::default();
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut held: Vec<Place> =
            (0..STREAMS_OF_TENANT_MAX).map(|_| streams.take(one).expect("there is room")).collect();
        assert_eq!(streams.take(one).map(drop).expect_err("it has its share").status().as_u16(), 503);
        streams.take(other).expect("another tenant has its own");
        held.pop();
        streams.take(one).expect("one is free again");
        drop(held);
        assert!(streams.open.lock().expect("nobody panicked").is_empty());
    }
}

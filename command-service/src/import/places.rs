//! Places for what many want to do at the same time: some in all, and fewer for one tenant, so that one is left for others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// Some places.
pub struct Places {
    most: usize,
    most_of_tenant: usize,
    /// The tenants of those who have one.
    taken: Mutex<Vec<Uuid>>,
}

/// One of them, given back when dropped.
pub struct Place {
    places: Arc<Places>,
    tenant_id: Uuid,
}

impl Places {
    /// `most` places, of which one tenant has at most `most_of_tenant`.
    pub fn new(most: usize, most_of_tenant: usize) -> Arc<Self> {
        Arc::new(Self { most, most_of_tenant, taken: Mutex::default() })
    }

    /// A place for a tenant; none where all are taken, or all that it may have.
    pub fn take(self: &Arc<Self>, tenant_id: Uuid) -> Option<Place> {
        let mut taken = self.taken();
        let of_tenant = taken.iter().filter(|other| **other == tenant_id).count();
        if taken.len() >= self.most || of_tenant >= self.most_of_tenant {
            return None;
        }
        taken.push(tenant_id);
        Some(Place { places: Arc::clone(self), tenant_id })
    }

    /// Whether anybody could have one.
    pub fn has_room(&self) -> bool {
        self.taken().len() < self.most
    }

    fn taken(&self) -> MutexGuard<'_, Vec<Uuid>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        if let Some(mine) = taken.iter().position(|tenant_id| *tenant_id == self.tenant_id) {
            taken.swap_remove(mine);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_leaves_a_place_for_others_and_what_is_given_back_is_free() {
        let places = Places::new(3, 2);
        let [one, other] = [1, 2].map(Uuid::from_u128);
        let first = places.take(one).expect("a place");
        let _second = places.take(one).expect("a place");
        assert!(places.take(one).is_none(), "more than one tenant may have");
        let _third = places.take(other).expect("the place that was left");
        assert!(places.take(other).is_none(), "all are taken");
        drop(first);
        assert!(places.take(one).is_some());
    }
}

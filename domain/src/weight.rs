//! How much memory collections take, for bounds on what is kept.

/// Bytes that a `BTreeMap` or `BTreeSet` of so many entries takes beside what these hold themselves: nodes of eleven places, on average
/// little more than half full, and a node for a single entry too.
pub(crate) fn of_tree<K, V>(entries: usize) -> usize {
    const PLACES: usize = 11;
    const HEADER_BYTES: usize = 24;
    entries.div_ceil(PLACES / 2 + 1) * (PLACES * (size_of::<K>() + size_of::<V>()) + HEADER_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_takes_a_whole_node_for_one_entry_and_nothing_for_none() {
        assert_eq!([0, 1, 6, 7].map(of_tree::<u64, ()>), [0, 112, 112, 224]);
    }
}

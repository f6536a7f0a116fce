//! Paths of RFC 6962, section 2.1: which subtrees a proof is made of, and what it proves.

use super::hash::Hash;

/// A complete subtree: the leaves from `index << bits` up to, but without, `(index + 1) << bits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Node {
    /// It covers two to this power leaves.
    pub bits: u32,
    /// Its place among those of its size, counted from 0.
    pub index: u64,
}

/// The complete subtrees that the tree over the leaves from `start` up to, but without, `end` consists of, from left to right. Their
/// roots, joined ([`Hash::join`]), are its root. `start` is where a subtree of the RFC begins: a multiple of a power of two that is no
/// less than the count of leaves.
pub fn subtrees(start: u64, end: u64) -> Vec<Node> {
    let length = end.saturating_sub(start);
    let mut at = start;
    let mut nodes = Vec::new();
    for bits in (0..u64::BITS).rev().filter(|bits| length >> bits & 1 == 1) {
        nodes.push(Node { bits, index: at >> bits });
        at += 1 << bits;
    }
    nodes
}

/// What each hash of the inclusion proof of leaf `index` in the tree of `size` leaves is joined from; none if the tree has no such leaf.
pub fn inclusion(index: u64, size: u64) -> Option<Vec<Vec<Node>>> {
    if index >= size {
        return None;
    }
    let (mut start, mut end) = (0, size);
    let mut path = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            path.push(subtrees(middle, end));
            end = middle;
        } else {
            path.push(subtrees(start, middle));
            start = middle;
        }
    }
    path.reverse();
    Some(path)
}

/// What each hash of the proof that the tree of `size` leaves begins with that of `first` leaves is joined from; none if it is larger,
/// or empty.
pub fn consistency(first: u64, size: u64) -> Option<Vec<Vec<Node>>> {
    if first == 0 || first > size {
        return None;
    }
    let (mut start, mut end) = (0, size);
    // Whether what is looked at is still the whole first tree, whose root the verifier has.
    let mut known = true;
    let mut path = Vec::new();
    while first != end {
        let middle = start + split(end - start);
        if first <= middle {
            path.push(subtrees(middle, end));
            end = middle;
        } else {
            path.push(subtrees(start, middle));
            start = middle;
            known = false;
        }
    }
    if !known {
        path.push(subtrees(start, end));
    }
    path.reverse();
    Some(path)
}

/// The largest power of two less than a count of at least two.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// Whether the path shows that the tree of this size and root has this leaf at `index` (RFC 9162, 2.1.3.2).
pub fn includes(leaf: Hash, index: u64, size: u64, path: &[Hash], root: Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut place, mut last) = (index, size - 1);
    let mut hash = leaf;
    for other in path {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            hash = Hash::node(other, &hash);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            hash = Hash::node(&hash, other);
        }
        place >>= 1;
        last >>= 1;
    }
    last == 0 && hash == root
}

/// Whether the path shows that the tree of `size` leaves and the root `root` begins with that of `first` leaves and the root
/// `first_root` (RFC 9162, 2.1.4.2).
pub fn is_consistent(first: u64, first_root: Hash, size: u64, root: Hash, path: &[Hash]) -> bool {
    if first == 0 || first > size {
        return false;
    }
    if first == size {
        return path.is_empty() && first_root == root;
    }
    let (mut place, mut last) = (first - 1, size - 1);
    while place & 1 == 1 {
        place >>= 1;
        last >>= 1;
    }
    let mut hashes = path.iter();
    // A first tree that is one complete subtree is where the path starts, and is not in it.
    let begin = if first.is_power_of_two() { Some(&first_root) } else { hashes.next() };
    let Some(&begin) = begin else { return false };
    let (mut of_first, mut of_all) = (begin, begin);
    for other in hashes {
        if last == 0 {
            return false;
        }
        if place & 1 == 1 || place == last {
            of_first = Hash::node(other, &of_first);
            of_all = Hash::node(other, &of_all);
            while place & 1 == 0 && place != 0 {
                place >>= 1;
                last >>= 1;
            }
        } else {
            of_all = Hash::node(&of_all, other);
        }
        place >>= 1;
        last >>= 1;
    }
    last == 0 && of_first == first_root && of_all == root
}

#[cfg(test)]
mod tests;

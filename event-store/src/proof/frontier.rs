//! The tree in one streaming pass: only the roots of the complete subtrees along its right edge are kept, as many as the size has
//! ones in binary.

use super::hash::Hash;

/// How many binary levels lie between two levels whose hashes are stored: a stored hash of level `n` covers 256ⁿ leaves.
pub const STORED_BITS: u32 = 8;

/// A tree that grows to the right.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Roots of complete subtrees from left to right, each smaller than the one before it.
    peaks: Vec<Hash>,
}

/// A subtree that is complete now and whose hash is worth storing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Complete {
    /// It covers 256 to this power leaves.
    pub level: u32,
    /// Its place among those of its level, counted from 0.
    pub index: u64,
    /// Its root.
    pub hash: Hash,
}

impl Frontier {
    /// The tree of a size whose complete subtrees, from left to right, have these roots: as many as `size` has ones in binary.
    ///
    /// # Panics
    /// If there are more or fewer.
    pub fn from_peaks(size: u64, peaks: Vec<Hash>) -> Self {
        assert_eq!(size.count_ones() as usize, peaks.len(), "a root for every one of the size");
        Self { size, peaks }
    }

    /// How many leaves it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf, and tells of each subtree that it completes, the leaf itself first.
    ///
    /// # Panics
    /// Never: a tree has a root for every one of its size.
    pub fn append(&mut self, leaf: Hash, mut complete: impl FnMut(Complete)) {
        complete(Complete { level: 0, index: self.size, hash: leaf });
        let mut hash = leaf;
        let mut rest = self.size;
        let mut bits = 0;
        while rest & 1 == 1 {
            let left = self.peaks.pop().expect("every one of the size has its root");
            hash = Hash::node(&left, &hash);
            rest >>= 1;
            bits += 1;
            if bits % STORED_BITS == 0 {
                complete(Complete { level: bits / STORED_BITS, index: self.size >> bits, hash });
            }
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root of the whole tree.
    pub fn root(&self) -> Hash {
        Hash::join(&self.peaks)
    }
}

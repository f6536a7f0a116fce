//! The published vectors of RFC 6962's tree (the certificate-transparency project's reference tree), and random trees.

use proptest::prelude::*;

use super::*;
use crate::proof::Frontier;

const LEAVES: [&[u8]; 8] = [
    b"",
    &[0x00],
    &[0x10],
    &[0x20, 0x21],
    &[0x30, 0x31],
    &[0x40, 0x41, 0x42, 0x43],
    &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
    &[0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f],
];

/// Roots over the first 0, 1, 2, … of them.
const ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

/// Leaf, counted from 1, size, path.
const INCLUSIONS: [(u64, u64, &[&str]); 5] = [
    (1, 1, &[]),
    (
        1,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        &[
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (3, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        2,
        5,
        &[
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
];

/// Sizes, path.
const CONSISTENCIES: [(u64, u64, &[&str]); 4] = [
    (1, 1, &[]),
    (
        1,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        &[
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        &[
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
];

fn hashes(texts: &[&str]) -> Vec<Hash> {
    texts.iter().map(|text| text.parse().expect("a hash")).collect()
}

fn root(leaves: &[Hash]) -> Hash {
    let mut tree = Frontier::default();
    for leaf in leaves {
        tree.append(*leaf, |_| {});
    }
    tree.root()
}

/// What the tree's definition says, with nothing clever.
fn root_by_definition(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::empty(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(usize::try_from(split(leaves.len() as u64)).expect("small"));
            Hash::node(&root_by_definition(left), &root_by_definition(right))
        }
    }
}

fn resolve(path: &[Vec<Node>], leaves: &[Hash]) -> Vec<Hash> {
    let part = |node: &Node| {
        let (first, after) = (node.index << node.bits, (node.index + 1) << node.bits);
        root(&leaves[usize::try_from(first).expect("small")..usize::try_from(after).expect("small")])
    };
    path.iter().map(|nodes| Hash::join(&nodes.iter().map(part).collect::<Vec<_>>())).collect()
}

fn published() -> Vec<Hash> {
    LEAVES.iter().map(|leaf| Hash::leaf(&[leaf])).collect()
}

#[test]
fn the_published_roots_come_out() {
    let leaves = published();
    for (size, expected) in ROOTS.iter().enumerate() {
        assert_eq!(root(&leaves[..size]).to_string(), *expected, "{size} leaves");
    }
}

#[test]
fn the_published_inclusion_proofs_come_out_and_verify() {
    let leaves = published();
    for (leaf, size, expected) in INCLUSIONS {
        let expected = hashes(expected);
        let path = resolve(&inclusion(leaf - 1, size).expect("it is in the tree"), &leaves);
        assert_eq!(path, expected, "leaf {leaf} of {size}");
        let (at, count) = (usize::try_from(leaf - 1).expect("small"), usize::try_from(size).expect("small"));
        assert!(includes(leaves[at], leaf - 1, size, &path, ROOTS[count].parse().expect("a hash")));
    }
    assert_eq!(inclusion(0, 0), None);
    assert_eq!(inclusion(3, 3), None);
}

#[test]
fn the_published_consistency_proofs_come_out_and_verify() {
    let leaves = published();
    for (first, size, expected) in CONSISTENCIES {
        let path = resolve(&consistency(first, size).expect("it is smaller"), &leaves);
        assert_eq!(path, hashes(expected), "{first} of {size}");
        let root = |size: u64| ROOTS[usize::try_from(size).expect("small")].parse().expect("a hash");
        assert!(is_consistent(first, root(first), size, root(size), &path));
    }
    assert_eq!(consistency(0, 3), None);
    assert_eq!(consistency(4, 3), None);
}

fn leaves(count: u64) -> Vec<Hash> {
    (0..count).map(|number| Hash::leaf(&[&number.to_be_bytes()])).collect()
}

fn changed(hash: Hash) -> Hash {
    Hash::leaf(&[hash.as_bytes()])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_frontier_is_the_tree_and_tells_of_every_subtree_worth_storing(count in 0_u64..1_200) {
        let leaves = leaves(count);
        let mut tree = Frontier::default();
        let mut told = Vec::new();
        for leaf in &leaves {
            tree.append(*leaf, |complete| told.push(complete));
        }
        prop_assert_eq!(tree.root(), root_by_definition(&leaves));
        let groups: Vec<_> = told.iter().filter(|complete| complete.level == 1).collect();
        prop_assert_eq!(groups.len() as u64, count / 256);
        for (index, group) in groups.iter().enumerate() {
            prop_assert_eq!(group.index, index as u64);
            prop_assert_eq!(group.hash, root_by_definition(&leaves[index * 256..][..256]));
        }
        prop_assert_eq!(told.iter().filter(|complete| complete.level == 0).count() as u64, count);
    }

    #[test]
    fn every_inclusion_proof_verifies_and_a_changed_one_does_not(size in 1_u64..700, index in 0_u64..700, spoilt in 0_usize..16) {
        let index = index % size;
        let leaves = leaves(size);
        let (root, leaf) = (root_by_definition(&leaves), leaves[usize::try_from(index).expect("small")]);
        let path = resolve(&inclusion(index, size).expect("it is in the tree"), &leaves);
        prop_assert!(includes(leaf, index, size, &path, root));
        prop_assert!(!includes(changed(leaf), index, size, &path, root));
        prop_assert!(!includes(leaf, index, size, &path, changed(root)));
        prop_assert!(!includes(leaf, index + 1, size, &path, root));
        prop_assert!(!includes(leaf, index, size, &[&path[..], &[leaf]].concat(), root));
        if !path.is_empty() {
            let mut wrong = path.clone();
            let at = spoilt % wrong.len();
            wrong[at] = changed(wrong[at]);
            prop_assert!(!includes(leaf, index, size, &wrong, root));
            prop_assert!(!includes(leaf, index, size, &path[1..], root));
        }
    }

    #[test]
    fn every_consistency_proof_verifies_and_a_changed_one_does_not(size in 1_u64..700, first in 1_u64..700, spoilt in 0_usize..16) {
        let first = (first - 1) % size + 1;
        let leaves = leaves(size);
        let root = root_by_definition(&leaves);
        let first_root = root_by_definition(&leaves[..usize::try_from(first).expect("small")]);
        let path = resolve(&consistency(first, size).expect("it is smaller"), &leaves);
        prop_assert!(is_consistent(first, first_root, size, root, &path));
        prop_assert!(!is_consistent(first, changed(first_root), size, root, &path));
        prop_assert!(!is_consistent(first, first_root, size, changed(root), &path));
        prop_assert!(!is_consistent(first, first_root, size, root, &[&path[..], &[root]].concat()));
        if !path.is_empty() {
            let mut wrong = path.clone();
            let at = spoilt % wrong.len();
            wrong[at] = changed(wrong[at]);
            prop_assert!(!is_consistent(first, first_root, size, root, &wrong));
            prop_assert!(!is_consistent(first, first_root, size, root, &path[1..]));
        }
    }
}

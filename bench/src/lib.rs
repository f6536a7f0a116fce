//! What the benchmarks share with the end-to-end tests: the list that both import.

pub mod messy;

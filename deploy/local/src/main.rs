//! deploy/local
fn main() {}

//! The whole system on one machine: a real primary, real streaming replicas, NATS with JetStream on disk, and the three services.
//! For trying it, for tests and for benchmarks; [`Stack`] is the library that `local-stack`, tests and benchmarks share.

mod account;
mod data;
mod error;
mod http;
mod installed;
mod keep;
mod part;
mod postgres;
mod sample;
mod stack;

pub use data::data_directory;
pub use error::StackError;
pub use part::Part;
pub use sample::load_sample;
pub use stack::{Options, Ports, Stack};

//! The whole system on one machine: a real primary, real streaming replicas, NATS with JetStream on disk, and the three services.
//! For trying it, for tests and for benchmarks; [`Stack`] is the library that `local-stack`, tests and benchmarks share.

mod account;
mod archive;
mod data;
mod error;
mod http;
mod installed;
mod keep;
mod part;
mod postgres;
mod processes;
mod promote;
mod sample;
mod seats;
mod stack;

pub use account::Account;
pub use data::data_directory;
pub use error::StackError;
pub use installed::{Postgres, bin_directory};
pub use part::Part;
pub use promote::{Behind, Promotion};
pub use sample::load_sample;
pub use stack::{Options, Ports, Stack};

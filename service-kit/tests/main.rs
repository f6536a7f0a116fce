//! The parts of a service over real sockets and a real database.

mod authentication;
mod client;
mod documents;
mod serving;

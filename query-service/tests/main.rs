//! The query service over a real socket, on a real PostgreSQL.

mod duplicates;
mod events;
mod freshness;
mod lists;
mod proofs;
mod past;
mod reads;
mod records;
mod replicas;
mod reviews;
mod streams;
mod support;

//! The query service over a real socket, on a real PostgreSQL.

mod analytics;
mod duplicates;
mod events;
mod freshness;
mod lists;
mod past;
mod proofs;
mod reads;
mod records;
mod replicas;
mod reviews;
mod streams;
mod support;

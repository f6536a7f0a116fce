//! The promises of the whole system, kept by real processes.

mod bad_input;
mod batch;
mod crashes;
mod following;
mod imports;
mod merging;
mod nats;
mod personal;
mod races;
mod real_data;
mod receipts;
mod relay;
mod replicas;
mod seeing;
mod shutdown;
mod slow_clients;
mod tenants;

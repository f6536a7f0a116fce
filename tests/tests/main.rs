//! The promises of the whole system, kept by real processes.

mod backups;
mod bad_input;
mod batch;
mod crashes;
mod erasing;
mod failover;
mod following;
mod history;
mod importing;
mod imports;
mod integrity;
mod legacy;
mod merging;
mod nats;
mod personal;
mod proofs;
mod races;
mod real_data;
mod receipts;
mod relay;
mod replicas;
mod reviews;
mod seeing;
mod shutdown;
mod slow_clients;
mod tenants;

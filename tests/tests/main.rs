//! The promises of the whole system, kept by real processes.

mod crashes;
mod nats;
mod personal;
mod real_data;
mod tenants;

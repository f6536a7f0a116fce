//! What every process needs: database connections, and (see the modules) configuration, telemetry, problem details,
//! authentication, health, HTTP serving and shutdown. No business rules.

pub mod postgres;

//! What every process needs: database connections, configuration, telemetry, problem details, authentication, health, HTTP
//! serving, documents and shutdown. No business rules.
//!
//! A service's `main` goes: parse its arguments (with [`config::CommonArgs`]), [`telemetry::init`], [`shutdown::on_signal`], make its
//! pools, check the schema, put a router together (its routes under [`auth::protect`], merged with [`health::Health::router`] and
//! [`docs::router`]), wrap it in [`http::observe`], and [`http::serve`] it.

pub mod auth;
pub mod config;
pub mod docs;
pub mod health;
pub mod http;
pub mod postgres;
pub mod problem;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod watchdog;

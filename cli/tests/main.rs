//! `prospectus` as an operator runs it, against a real server.

mod access;
mod domains;
mod log;
mod program;
mod schema;
mod status;

//! The projection on a real PostgreSQL: what it promises about rows, checkpoint and queue, with companies of many prospects, with
//! projectors that collide, pause and die, and with logs and tables that somebody has tampered with.

mod bounds;
mod collisions;
mod erasing;
mod fanout;
mod histories;
mod interruptions;
mod merging;
mod rebuilding;
mod refreshing;
mod rows;
mod service;
mod skipping;
mod stopping;
mod support;
mod verifying;

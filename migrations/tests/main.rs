//! The runner and the walls, on a real server.

mod runner;
mod walls;

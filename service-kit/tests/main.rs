//! The parts of a service over real sockets and a real database.

//! The store on a real PostgreSQL: what it promises, under writers that disagree, lost answers and foreign transactions.

mod appending;
mod claims;
mod cqrs;
mod erasing;
mod lost_answers;
mod merging;
mod receipts;
mod rooms;
mod sealed;
mod sealing;
mod support;
mod tampering;

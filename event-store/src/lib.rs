//! The log: append, load, read in order; and what stands beside an event in its transaction.
//!
//! Owns decisions 1 to 9 and 17 of the architecture: dense positions in commit order (I1), each acknowledged command exactly once
//! (I2), claims, matches, receipts, epochs, keys. Knows nothing of companies: records come in through [`domain::Record`].
//!
//! The way of a command: [`executor::Executor`] loads the record (from memory, or by [`load::Loader`]), lets it decide, makes an
//! [`append::Append`] of what it decided, and hands it to [`append::Appender`], which commits it together with others. The way of
//! a reader: [`feed::Feed`] from any position, and [`seal::PersonKeys`] to open what is sealed.

pub mod append;
pub mod canonical;
pub mod cqrs;
pub mod epoch;
pub mod erasures;
pub mod event;
pub mod executor;
pub mod feed;
pub mod json_text;
pub mod keyring;
pub mod load;
pub mod lookup;
pub mod proof;
pub mod receipt;
pub mod rewrap;
pub mod seal;
pub mod store;

pub use event::{Metadata, StoredEvent};
pub use executor::{ExecuteError, Executor, ForgetError, Forgotten, Request};
pub use feed::Feed;
pub use keyring::Keyring;
pub use receipt::Answer;
pub use store::Store;

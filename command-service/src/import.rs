//! From the bytes of a list to the members of companies and prospects: the pure part of an import. No database, no HTTP, no clock.
//!
//! The way of a list: [`Intake`] takes bytes as they are sent, undoes compression and charset and cuts them into [`Chunk`]s of whole
//! records, in bounded memory whatever comes, or says why not ([`Refusal`]). [`rows()`] takes a chunk apart into [`Row`]s of cells. A
//! [`Mapping`] says which column becomes which field; bound to the file's [`Form`] it makes a [`Mapped`] of each row.

mod bind;
mod builtin;
mod charset;
mod convert;
mod decompress;
mod fields;
mod form;
mod guess;
mod header;
mod intake;
mod mapped;
mod mapping;
mod members;
mod place;
mod refusal;
mod rows;
mod sniff;
mod split;
mod template;
mod text;
mod write;

pub use bind::Bound;
pub use builtin::NAMES as BUILTIN_NAMES;
pub use form::{Charset, Compression, Declared, Form, Format};
pub use intake::{Chunk, Intake, Taken};
pub use mapped::{Mapped, Reason};
pub use mapping::{Mapping, MappingError, Unmapped};
pub use place::Side;
pub use refusal::Refusal;
pub use rows::{BadRow, Cells, Row, rows};

//! Serving HTTP: connections in bounds ([`serve`]), what surrounds every request ([`observe`]), bodies in bounds ([`read_body`],
//! [`read_json`]).

mod body;
mod observe;
mod serve;

pub use body::{BODY_TIMEOUT, JsonBody, parse_json_object, read_body, read_json};
pub use observe::{RequestContext, observe};
pub use serve::{Limits, serve};

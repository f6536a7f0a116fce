//! Lists: filters, a sort, and a keyset cursor, made into statements that always begin at an index with the tenant.

pub(crate) mod cursor;
pub(crate) mod filter;
#[cfg(test)]
mod plans;
pub(crate) mod resource;
pub(crate) mod sort;
pub(crate) mod statement;

pub(crate) use resource::Resource;

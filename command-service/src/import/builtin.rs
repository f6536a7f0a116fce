//! Mappings that need no file.

/// Their names.
pub const NAMES: [&str; 3] = ["customer", "hubspot", "salesforce"];

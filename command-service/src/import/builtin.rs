//! Mappings that need no file.

/// Their names.
pub const NAMES: [&str; 3] = ["customer", "hubspot", "salesforce"];

/// The file of one of them.
pub(super) fn text(name: &str) -> Option<&'static str> {
    match name {
        "customer" => Some(include_str!("mappings/customer.toml")),
        "hubspot" => Some(include_str!("mappings/hubspot.toml")),
        "salesforce" => Some(include_str!("mappings/salesforce.toml")),
        _ => None,
    }
}

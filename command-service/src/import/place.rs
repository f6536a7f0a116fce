//! Where values go.

/// Which record a value goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The row's company.
    Company,
    /// The row's prospect, or each of them.
    Prospect,
}

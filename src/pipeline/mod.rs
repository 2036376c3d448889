//! From raw bytes to one merged configuration: validate → adapt → stitch, and guards before anything is published.
//!
//! Pure: no clock, no I/O, no actor. The fourth stage, *store*, is I/O and therefore not here: `ConfigServiceActor`
//! runs these functions on a blocking thread and hands what they make to `StoreActor`.
//!
//! A malformed item is dropped in [`validate`] (its last good version is put in its place), a malformed document is
//! refused there as a whole ([`Refusal`]). A well-formed one that would change too much is kept apart by [`admission`],
//! which asks [`guard`]. [`relay`] makes the
//! documents that SDKs get, out of the bytes that came; [`overlay`] lays over all of them what operators force.

pub mod adapt;
pub mod admission;
pub mod dates;
mod groups;
pub mod guard;
pub mod input;
mod namespaces;
pub mod overlay;
pub mod overrides;
pub mod payload;
mod projects;
pub mod relay;
pub mod stitch;
pub mod validate;

pub use adapt::FieldNames;
pub use payload::{ExperimentList, Payload};

/// Why a whole document is not taken. The last accepted one stays in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not JSON, or a member of the wrong type.
    #[error("{message}")]
    Malformed {
        /// What is wrong.
        message: String,
    },
    /// Larger than a limit.
    #[error("{what} has {got} items, more than the limit of {limit}")]
    TooMany {
        /// Member of the document.
        what: &'static str,
        /// Number of items.
        got: usize,
        /// The limit.
        limit: usize,
    },
}

impl Refusal {
    /// Stable word for answers and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::TooMany { .. } => "too_many_items",
        }
    }
}

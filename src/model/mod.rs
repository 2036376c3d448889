//! The nouns of stitchd: what a configuration is made of, free of wire formats, time and I/O.
//!
//! Nothing here derives `Serialize`: each boundary owns its own format (`pipeline::payload` in, `views` and `http` out,
//! `store` at rest). JSON that nobody here needs to understand is carried as [`CanonicalJson`]. What a snapshot decides
//! is [`crate::eval`]'s to know; [`Evaluators`] keeps it beside the bytes it was compiled from.

pub mod canonical;
pub mod evaluators;
pub mod experiment;
pub mod feature;
pub mod issue;
pub mod json;
pub mod overrides;
pub mod provenance;
pub mod remotes;
pub mod scoped;
pub mod snapshot;
pub mod stitched;
pub mod token;

pub use canonical::CanonicalJson;
pub use evaluators::Evaluators;
pub use experiment::{Delivery, Experiment, Namespace, Phase, Status, Variation};
pub use feature::Feature;
pub use issue::{Issue, Severity};
pub use json::Json;
pub use overrides::{Forced, Override};
pub use provenance::{Cause, IssueSummary, KeptIssue, SourceVersion};
pub use scoped::{ScopedDocument, View, Views, Visibility};
pub use snapshot::{Candidate, Document, Encodings, Freshness, Snapshot, SnapshotMeta};
pub use stitched::{Sourced, Stitched};
pub use token::{Projects, Scope, Token, TokenId, TokenKind, Validity};

/// The word in which a token says how its users are evaluated.
pub use crate::eval::Dialect;

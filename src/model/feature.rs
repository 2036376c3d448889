//! A feature as one source defined it.

use std::sync::Arc;

use super::CanonicalJson;

/// A feature definition in canonical spelling; which source it came from is kept beside it in [`super::Sourced`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The SDK definition object (`defaultValue`, `rules`, unknown members included), without a member `source`.
    pub definition: CanonicalJson,
    /// Keys of the features that its rules depend on (`parentConditions`), each once, in order of appearance.
    pub parents: Vec<Arc<str>>,
}

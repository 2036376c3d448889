//! The tables as sea-orm sees them; made by the `migration` crate.

pub(super) mod audit_entries;
#[expect(unreachable_pub, reason = "what sea-orm derives beside it is public")]
pub(super) mod environment_states;
pub(super) mod revisions;
pub(super) mod source_inputs;
pub(super) mod source_states;
#[expect(unreachable_pub, reason = "what sea-orm derives beside it is public")]
pub(super) mod sticky_buckets;
#[expect(unreachable_pub, reason = "what sea-orm derives beside it is public")]
pub(super) mod tokens;

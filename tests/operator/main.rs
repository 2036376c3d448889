//! What operators decide: overrides and pins, on every route, through outages, restarts and replicas.

#![allow(
    clippy::unwrap_used,
    clippy::similar_names,
    clippy::too_many_lines,
    missing_docs,
    unreachable_pub,
    reason = "a test fails by panicking, and its doc is its name"
)]

#[path = "../support/mod.rs"]
mod support;

mod approvals;
mod audited;
mod clients;
mod endings;
mod pins;
mod refused;
mod routes;
mod sealed;
mod stand;
mod storage;

//! OpenFeature remote evaluation over HTTP, as any client sees it; `tests/clients` has the real ones.
//!
//! Every answer goes through [`schema::check`], whatever a test asks for.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod bodies;
mod events;
mod flags;
mod limits;
mod paths;
mod schema;
mod stand;
mod tags;

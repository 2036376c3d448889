//! Unleash's Frontend API over HTTP, as any client sees it; `tests/clients` has the real one.
//!
//! Every answer goes through [`stand::check`], whatever a test asks for.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test fails by panicking"
)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod reports;
mod stand;
mod tags;
mod toggles;

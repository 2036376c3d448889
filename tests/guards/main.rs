//! Guards before publishing: what is held, what goes on meanwhile, what operators do about it.
//!
//! `incidents` has three that happened elsewhere, `properties` throws mutated payloads at the funnel's own functions and
//! at the whole service. The other files are black boxes over HTTP.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod decisions;
mod edits;
mod incidents;
mod limits;
mod mutations;
mod parking;
mod properties;
mod restarts;
mod stand;

//! What GrowthBook's SDKs, and GrowthBook itself, get of a running service.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod features;
mod keys;
mod many_streams;
mod push;
mod stand;
mod streams;
mod webhook;

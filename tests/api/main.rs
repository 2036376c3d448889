//! The service over HTTP, as its users see it.

#[path = "../support/mod.rs"]
mod support;

mod control;

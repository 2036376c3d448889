//! The service over HTTP, as its users see it.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "../support/mod.rs"]
mod support;

mod batch;
mod control;
mod decide;
mod eval;
mod evaluate;
mod explain;
mod questions;
mod sticky;

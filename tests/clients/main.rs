//! Real clients, unmodified, against the running service: Unleash's, and OpenFeature's for remote evaluation.
//!
//! Each runs as a program of this folder that prints what its client sees. `.ci/run` installs them: packages of
//! `tests/sdk/package.json` in the folder `STITCHD_TEST_NODE`, those of `tests/sdk/requirements.txt` in
//! `STITCHD_TEST_PYTHON`, the program of `tests/clients/rust` as `STITCHD_TEST_OFREP_RUST`, and a Chromium, found as
//! `STITCHD_TEST_CHROMIUM` or where Debian has it.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a test reads its own environment"
)]

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod python;
mod rust;
mod server;
mod stand;
mod unleash;
mod web;

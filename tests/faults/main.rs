//! What a misbehaving upstream does to what is served: nothing.
//!
//! Each test runs the whole service against the lying upstream. `stand` builds both and holds the one question that all
//! of them ask: are the answers of every data route, byte for byte, what they were?

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

#[allow(dead_code, reason = "the tests of the VCL need more of it")]
#[path = "../varnish/cache.rs"]
mod cache;
#[allow(dead_code, reason = "one of the schemas is enough here")]
#[path = "../views/schemas.rs"]
mod schemas;

mod budget;
mod emptiness;
mod fetcher;
mod first_publish;
mod halves;
mod items;
mod matrix;
mod permanent;
mod polls;
mod redirects;
mod references;
mod sources;
mod stand;

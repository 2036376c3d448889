//! The sources against a scripted upstream on a raw socket: each fault, and what must be seen of it on the wire.
#![expect(
    clippy::unwrap_used,
    reason = "a test's helpers fail the test like the test itself"
)]

mod connections;
mod experiments;
mod faults;
mod file;
mod helpers;
mod limits;
mod payloads;
mod streams;
mod upstream;

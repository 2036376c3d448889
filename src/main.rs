//! The `stitchd` program: parses arguments, runs one command, reports why it stopped.

use std::process::ExitCode;

use clap::Parser as _;
use stitchd::cli::{Arguments, run};

/// A refresh has two generations of everything in memory; this gives the older one back. The C library's allocator keeps
/// it, scattered over an arena per thread: half as much again, and growing. Options are in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            // Logging may not have started: this line must reach the operator all the same.
            #[expect(
                clippy::print_stderr,
                reason = "the one line that says why the program could not do its job"
            )]
            {
                eprintln!("stitchd: {error:#}");
            }
            ExitCode::from(2)
        }
    }
}

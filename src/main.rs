//! The `stitchd` program: parses arguments, runs one command, reports why it stopped.

use std::process::ExitCode;

use clap::Parser as _;
use stitchd::cli::{Arguments, run};

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

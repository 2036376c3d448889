//! The commands. Exit codes: 0 good, 1 the answer is "no", 2 it could not be done.

mod check;
pub mod demo;
mod diff;
mod eval;
#[cfg(feature = "failpoints")]
mod failpoints;
mod healthcheck;
mod migrate;
mod output;
mod serve;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::settings::{self, Profile, Settings};

/// Serves GrowthBook configuration to everything that needs it, whatever happens upstream.
#[derive(Debug, Parser)]
#[command(name = "stitchd", version, max_term_width = 110)]
pub struct Arguments {
    /// Folder with default.toml and the layers above it
    #[arg(long, global = true, value_name = "DIR", default_value = "settings")]
    pub settings: PathBuf,
    /// What to do; `serve` when nothing is said
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// One thing that the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service
    Serve,
    /// Run the service with everything embedded: an upstream that changes by itself, a temporary database
    Demo(demo::DemoArguments),
    /// Report every problem of the settings and, with --payload, every issue of a payload
    Check {
        /// SDK payload, or a list of experiments of the management API, to run through the pipeline
        #[arg(long, value_name = "FILE")]
        payload: Option<PathBuf>,
    },
    /// Evaluate features of a payload or a snapshot without a service; prints one JSON object
    Eval(eval::EvalArguments),
    /// Tell what changed between two payloads or snapshots; exits 1 when anything did
    Diff(diff::DiffArguments),
    /// Change or show the database schema
    Migrate {
        /// Direction
        #[command(subcommand)]
        direction: migrate::Direction,
    },
    /// Ask the local /readyz; exits 0 when ready, 1 when not
    Healthcheck,
}

/// Runs a command to its end.
///
/// Fails when it could not be done; a "no" is an exit code.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let folder = arguments.settings;
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(load(&folder)?),
        Command::Demo(demo) => demo::run(&demo),
        Command::Check { payload } => check::run(&folder, payload.as_deref()),
        Command::Eval(arguments) => eval::run(&arguments),
        Command::Diff(arguments) => diff::run(&folder, &arguments),
        Command::Migrate { direction } => migrate::run(&load(&folder)?, &direction),
        Command::Healthcheck => healthcheck::run(&load(&folder)?),
    }
}

fn load(folder: &std::path::Path) -> anyhow::Result<Settings> {
    Ok(settings::load(folder, Profile::from_environment()?)?)
}

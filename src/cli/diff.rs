//! `stitchd diff`: what changed between two payloads, snapshots or stored revisions.

use std::{path::Path, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;

use super::{eval, output::line};
use crate::{
    diff::{self, Change, Configuration, Kind, Noticed},
    eval::Dialect,
    settings::Settings,
    store::{Store, StoredRevision},
};

/// Longest text of a value in a line, in characters.
const VALUE_CHARS_MAX: usize = 120;

/// Options of `diff`.
#[derive(Debug, Args)]
pub struct DiffArguments {
    /// SDK payload, snapshot, or rev:ENVIRONMENT:NUMBER for a stored revision
    a: String,
    /// The same, later
    b: String,
    /// Evaluate both for so many sample units and tell how many get another answer
    #[arg(long, value_name = "N")]
    units: Option<usize>,
    /// Dialect of that evaluation: strict or legacy
    #[arg(long, value_name = "DIALECT", default_value = "strict", value_parser = eval::dialect)]
    dialect: Dialect,
}

pub(super) fn run(folder: &Path, arguments: &DiffArguments) -> anyhow::Result<ExitCode> {
    let before = read(folder, &arguments.a)?;
    let after = read(folder, &arguments.b)?;
    let changes = diff::changes(&before, &after);
    for change in &changes {
        print(change);
    }
    if let Some(units) = arguments.units {
        print_units(&diff::noticed(&before, &after, units, arguments.dialect));
    }
    if changes.is_empty() {
        line("no differences");
    }
    Ok(ExitCode::from(u8::from(!changes.is_empty())))
}

fn print(change: &Change) {
    let (word, fields) = match &change.kind {
        Kind::Added => ("added", &[][..]),
        Kind::Removed => ("removed", &[][..]),
        Kind::Changed(fields) => ("changed", fields.as_slice()),
    };
    line(&format!("{word} {} `{}`", change.collection, change.key));
    for field in fields {
        let path = if field.path.is_empty() {
            "(the whole)"
        } else {
            &field.path
        };
        let [before, after] = [&field.before, &field.after].map(|value| spelt(value.as_ref()));
        line(&format!("  {path}: {before} -> {after}"));
    }
}

fn spelt(value: Option<&Value>) -> String {
    let Some(value) = value else {
        return "(absent)".to_owned();
    };
    let text = value.to_string();
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn print_units(noticed: &Noticed) {
    #[expect(clippy::cast_precision_loss, reason = "no sample is that large")]
    let share = |units: usize| 100.0 * units as f64 / noticed.units.max(1) as f64;
    line(&format!(
        "units: {} of {} ({:.2} %) get another answer",
        noticed.changed,
        noticed.units,
        share(noticed.changed)
    ));
    let features = noticed.features.iter().map(|item| ("feature", item));
    let experiments = noticed.experiments.iter().map(|item| ("experiment", item));
    for (what, (key, units)) in features.chain(experiments) {
        line(&format!(
            "  {what} `{key}`: {units} ({:.2} %)",
            share(*units)
        ));
    }
}

/// Reads a file, or a revision from the database or the backup of the settings.
fn read(folder: &Path, named: &str) -> anyhow::Result<Configuration> {
    let Some(revision) = named.strip_prefix("rev:") else {
        return eval::read(Path::new(named));
    };
    let (environment, number) = revision.rsplit_once(':').with_context(|| {
        format!("`{named}` is no revision; use rev:ENVIRONMENT:NUMBER, such as rev:production:42")
    })?;
    let number: u64 = number
        .parse()
        .with_context(|| format!("`{number}` in `{named}` is not a revision number"))?;
    let settings = super::load(folder)?;
    let tail = stored(&settings, environment, number)?;
    let document = [b"{", &tail[..]].concat();
    let mut document: Value = serde_json::from_slice(&document)
        .with_context(|| format!("revision {number} of {environment} is not a snapshot"))?;
    document["revision"] = number.into();
    Configuration::new(document).map_err(|problem| anyhow::anyhow!("{named} {problem}"))
}

/// The snapshot document of a stored revision, behind the number.
fn stored(settings: &Settings, environment: &str, number: u64) -> anyhow::Result<bytes::Bytes> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let explain = |error: crate::store::StoreError| anyhow::anyhow!(error.explain());
        let store = Store::new(&settings.database, &settings.backup)?;
        let in_database = match store.database().revision(environment, number).await {
            Ok(Some(row)) => StoredRevision::unpack(&row).map_err(explain),
            Ok(None) => Err(anyhow::anyhow!("the database does not have it")),
            Err(error) => Err(explain(error)),
        };
        let found = match in_database {
            Ok(found) => found,
            Err(error) => match store.backup().read_revision(environment, number).await {
                Ok(found) => found,
                Err(missing) if missing.is_missing() => {
                    bail!("the backup has no revision {number} of `{environment}`, and {error}")
                }
                Err(harmed) => bail!("{}, and {error}", harmed.explain()),
            },
        };
        // What was read is whole; a database that is away has nothing to close.
        drop(store.close().await);
        Ok(found.candidate.snapshot_tail)
    })
}

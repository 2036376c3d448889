//! `stitchd check`: every problem of the settings, every issue of a payload, through the real code.

use std::{fs, path::Path, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use bytes::Bytes;
use serde_json::Value;
use time::OffsetDateTime;

use super::output::line;
use crate::{
    actors::config_service::field_names,
    clock,
    model::{Issue, Severity},
    pipeline::{
        Refusal,
        input::SourceInput,
        stitch::{self, StitchInput},
    },
    settings::{self, Profile, Settings},
    views,
};

/// Source named in the issues of a file that belongs to none.
const SOURCE: &str = "file";

pub(super) fn run(folder: &Path, payload: Option<&Path>) -> anyhow::Result<ExitCode> {
    let profile = Profile::from_environment()?;
    let mut is_good = true;
    let settings = match settings::load(folder, profile) {
        Ok(settings) => {
            line(&format!(
                "settings: good, {} source(s)",
                settings.sources.len()
            ));
            settings
        }
        // Without a folder there is nothing to check; a payload alone can be.
        Err(error) if !folder.is_dir() && payload.is_none() => return Err(error.into()),
        Err(error) => {
            if folder.is_dir() {
                error
                    .problems
                    .iter()
                    .for_each(|problem| line(&format!("settings: {problem}")));
                is_good = false;
            }
            Settings::default()
        }
    };
    if let Some(path) = payload {
        is_good &= check_payload(path, &settings)?;
    }
    Ok(ExitCode::from(u8::from(!is_good)))
}

/// Prints every issue; `false` when something would not be served as it is.
fn check_payload(path: &Path, settings: &Settings) -> anyhow::Result<bool> {
    let raw = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    let name = path.display();
    match issues(&raw.into(), settings, clock::now()) {
        Ok((summary, issues)) => {
            for issue in &issues {
                line(&format!("{name}: {issue}"));
            }
            line(&format!("{name}: {summary}, {} issue(s)", issues.len()));
            Ok(issues
                .iter()
                .all(|issue| issue.severity == Severity::Warning))
        }
        Err(refusal) => {
            line(&format!("{name}: refused ({}): {refusal}", refusal.code()));
            Ok(false)
        }
    }
}

fn issues(
    raw: &Bytes,
    settings: &Settings,
    now: OffsetDateTime,
) -> Result<(String, Vec<Issue>), Refusal> {
    // Custom fields of the first source, or the defaults.
    let fields = settings
        .sources
        .first()
        .map(|source| source.fields.clone())
        .unwrap_or_default();
    let fields = field_names(&fields);
    let mut input = SourceInput::default();
    // A list of experiments has them in an array and `features` nowhere.
    let shape: Option<Value> = serde_json::from_slice(raw).ok();
    let is_list = shape
        .is_some_and(|value| value.get("features").is_none() && value["experiments"].is_array());
    if is_list {
        input.take_experiments(SOURCE, raw, &fields)?;
    } else {
        input.take_payload(SOURCE, "", raw)?;
    }
    let inputs = [StitchInput {
        source: SOURCE.into(),
        precedence: 0,
        payloads: input
            .payloads
            .values()
            .map(|part| Arc::clone(&part.payload))
            .collect(),
        experiments: input
            .experiments
            .as_ref()
            .map(|part| Arc::clone(&part.list)),
        checked_at: now,
    }];
    let stitched = stitch::stitch("check", &inputs);
    let mut issues = stitched.issues.clone();
    for view in views::render_consumers(&stitch::shown(&stitched, &inputs)) {
        issues.extend(view.issues);
    }
    let summary = format!(
        "{} feature(s), {} experiment(s)",
        stitched.features.len(),
        stitched.experiments.len()
    );
    Ok((summary, issues))
}

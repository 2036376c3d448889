//! `stitchd eval`: evaluates a payload or a snapshot for one user, without a service.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Map, Value};

use super::output::line;
use crate::{
    diff::Configuration,
    eval::{Compiled, Context, Dialect, Explanation},
};

/// Options of `eval`.
#[derive(Debug, Args)]
pub struct EvalArguments {
    /// SDK payload, or a snapshot of /v1/snapshot/{environment}
    #[arg(long, value_name = "FILE")]
    payload: PathBuf,
    /// The user's attributes, for example '{"id":"u-1","country":"DE"}'
    #[arg(long, value_name = "JSON")]
    attributes: String,
    /// One feature only
    #[arg(long, value_name = "KEY")]
    feature: Option<String>,
    /// strict (SDK specification 0.12) or legacy (JavaScript's coercion)
    #[arg(long, value_name = "DIALECT", default_value = "strict", value_parser = dialect)]
    dialect: Dialect,
    /// Say why, step by step
    #[arg(long)]
    explain: bool,
}

/// Reads a dialect's name.
pub(super) fn dialect(word: &str) -> Result<Dialect, String> {
    Dialect::from_word(word).ok_or_else(|| "use strict or legacy".to_owned())
}

pub(super) fn run(arguments: &EvalArguments) -> anyhow::Result<ExitCode> {
    let configuration = read(&arguments.payload)?;
    let attributes = serde_json::from_str(&arguments.attributes)
        .context("`--attributes` is not JSON; use an object like '{\"id\":\"u-1\"}'")?;
    let Value::Object(attributes) = attributes else {
        bail!("`--attributes` is not a JSON object; use one like '{{\"id\":\"u-1\"}}'");
    };
    let compiled = Compiled::new(configuration.definitions(), arguments.dialect);
    let context = Context::new(&attributes);
    let mut results = Map::new();
    let mut evaluate = |key: &str| {
        let mut explanation = Explanation::default();
        let result = compiled.feature(&context, key, &mut explanation);
        let mut value = result.to_value();
        if arguments.explain {
            value["explanation"] = explanation.to_value(&compiled, &context);
        }
        results.insert(key.to_owned(), value);
    };
    match &arguments.feature {
        Some(key) => evaluate(key),
        None => compiled.feature_keys().for_each(|key| evaluate(key)),
    }
    line(&Value::Object(results).to_string());
    Ok(ExitCode::SUCCESS)
}

/// Reads a payload or a snapshot from a file.
pub(super) fn read(path: &Path) -> anyhow::Result<Configuration> {
    let name = path.display();
    let bytes = fs::read(path).with_context(|| format!("failed to read {name}"))?;
    let document = serde_json::from_slice(&bytes).with_context(|| format!("{name} is not JSON"))?;
    Configuration::new(document).map_err(|problem| anyhow::anyhow!("{name} {problem}"))
}

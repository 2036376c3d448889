//! Reading the layers: `default.toml` < `{profile}.toml` < `local.toml` < environment variables.

use std::path::Path;

use config::{Config, Environment, File, FileFormat};
use serde_json::Value;

use super::{Settings, SettingsError, secrets};

/// Which of the shipped profiles is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A developer's machine.
    Development,
    /// Automated tests.
    Test,
    /// Everything else.
    Production,
}

impl Profile {
    /// Reads `STITCHD_ENV`; unset or empty means production.
    pub fn from_environment() -> Result<Self, SettingsError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that reads the environment"
        )]
        let name = std::env::var("STITCHD_ENV").unwrap_or_default();
        match name.as_str() {
            "development" => Ok(Self::Development),
            "test" => Ok(Self::Test),
            "production" | "" => Ok(Self::Production),
            other => Err(SettingsError {
                problems: vec![format!(
                    "`STITCHD_ENV` is `{other}`; use development, test or production"
                )],
            }),
        }
    }

    fn file_name(self) -> &'static str {
        match self {
            Self::Development => "development.toml",
            Self::Test => "test.toml",
            Self::Production => "production.toml",
        }
    }
}

/// Loads the settings of `folder`.
///
/// Fails with every problem at once when a file cannot be read, a key is unknown, a value does not fit, or keys
/// contradict each other.
pub fn load(folder: &Path, profile: Profile) -> Result<Settings, SettingsError> {
    if !folder.is_dir() {
        let problem = format!(
            "settings folder {} does not exist; name one with `--settings DIR`",
            folder.display()
        );
        return Err(SettingsError {
            problems: vec![problem],
        });
    }
    let mut builder = Config::builder();
    for name in ["default.toml", profile.file_name(), "local.toml"] {
        builder = builder.add_source(File::from(folder.join(name)).required(false));
    }
    // Values are parsed, so that `STITCHD__SERVER__WORKERS=2` is a number.
    let environment = Environment::with_prefix("STITCHD")
        .prefix_separator("__")
        .separator("__")
        .try_parsing(true);
    finish(builder.add_source(environment), profile)
}

/// Reads settings from one TOML text, without folder or environment.
pub fn from_toml(text: &str, profile: Profile) -> Result<Settings, SettingsError> {
    finish(
        Config::builder().add_source(File::from_str(text, FileFormat::Toml)),
        profile,
    )
}

fn finish(
    builder: config::ConfigBuilder<config::builder::DefaultState>,
    profile: Profile,
) -> Result<Settings, SettingsError> {
    let failed = |error: config::ConfigError| SettingsError {
        problems: vec![error.to_string()],
    };
    let merged: Value = builder
        .build()
        .and_then(Config::try_deserialize)
        .map_err(failed)?;
    let mut problems = Vec::new();
    let mut settings = typed(merged, &mut problems);
    secrets::resolve(&mut settings, &mut problems);
    problems.extend(settings.problems(profile));
    if problems.is_empty() {
        Ok(settings)
    } else {
        Err(SettingsError { problems })
    }
}

/// Gives the tree its types. A value that does not fit is reported, taken out and the rest read again, so that one
/// run names every mistake.
fn typed(mut tree: Value, problems: &mut Vec<String>) -> Settings {
    loop {
        let error = match serde_path_to_error::deserialize::<_, Settings>(&tree) {
            Ok(settings) => return settings,
            Err(error) => error,
        };
        let path = readable_path(&tree, error.path());
        problems.push(format!("`{path}`: {}", error.inner()));
        if !remove(&mut tree, error.path()) {
            return Settings::default();
        }
    }
}

/// Spells a path for people: sources by their id rather than by their place in the list.
fn readable_path(tree: &Value, path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut text = String::new();
    let mut at = Some(tree);
    let mut in_sources = false;
    for segment in path {
        match segment {
            Segment::Map { key } => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
                at = at.and_then(|value| value.get(key));
                in_sources = key == "sources";
            }
            Segment::Seq { index } => {
                at = at.and_then(|value| value.get(index));
                let id = at.and_then(|value| value.get("id")).and_then(Value::as_str);
                match id.filter(|_| in_sources) {
                    Some(id) => text.extend([".", id]),
                    None => text.extend(["[", &index.to_string(), "]"]),
                }
                in_sources = false;
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    text
}

/// Takes out what `path` leads to; `false` when there is nothing there.
fn remove(tree: &mut Value, path: &serde_path_to_error::Path) -> bool {
    use serde_path_to_error::Segment;
    let segments: Vec<&Segment> = path
        .iter()
        .filter(|s| matches!(s, Segment::Map { .. } | Segment::Seq { .. }))
        .collect();
    let Some((last, parents)) = segments.split_last() else {
        return false;
    };
    let mut at = tree;
    for segment in parents {
        let next = match segment {
            Segment::Map { key } => at.get_mut(key.as_str()),
            Segment::Seq { index } => at.get_mut(*index),
            _ => None,
        };
        let Some(next) = next else { return false };
        at = next;
    }
    match (last, at) {
        (Segment::Map { key }, Value::Object(map)) => map.shift_remove(key.as_str()).is_some(),
        (Segment::Seq { index }, Value::Array(items)) if *index < items.len() => {
            items.remove(*index);
            true
        }
        _ => false,
    }
}

//! Which pages an experiment is for, and what a URL forces.

use serde_json::Value;
use url::Url;

use super::{condition::Compiler, js, regex::Pattern};

/// The pages that an experiment is for and those it is not for.
#[derive(Clone, Debug)]
pub(super) struct UrlTargets(Box<[Target]>);

#[derive(Clone, Debug)]
struct Target {
    includes: bool,
    page: Page,
}

#[derive(Clone, Debug)]
enum Page {
    /// Searched in the whole address and in that without its origin.
    Regex(Pattern),
    /// Compared part by part.
    Simple {
        host: Pattern,
        path: Pattern,
        hash: Option<Pattern>,
        query: Box<[(Box<str>, Pattern)]>,
    },
    /// A pattern or a type that nothing matches.
    None,
}

impl UrlTargets {
    /// Compiles `urlPatterns`.
    pub(super) fn new(targets: &Value, compiler: &Compiler<'_>) -> Self {
        let targets = targets.as_array().map(Vec::as_slice).unwrap_or_default();
        let target = |target: &Value| {
            let kind = target.get("type").and_then(Value::as_str);
            let pattern = target.get("pattern").and_then(Value::as_str);
            Target {
                includes: target.get("include") != Some(&Value::Bool(false)),
                page: match (kind, pattern) {
                    (Some("regex"), Some(pattern)) => {
                        compiler.pattern(pattern, false).map(Page::Regex)
                    }
                    (Some("simple"), Some(pattern)) => simple(pattern, compiler),
                    _ => None,
                }
                .unwrap_or(Page::None),
            }
        };
        Self(targets.iter().map(target).collect())
    }

    /// Whether a page is meant.
    pub(super) fn matches(&self, url: &str) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let url = parse(url, "https://_");
        let is_match = |target: &Target| url.as_ref().is_some_and(|url| target.page.matches(url));
        let (mut has_include, mut is_included) = (false, false);
        for target in &self.0 {
            if target.includes {
                has_include = true;
                is_included |= is_match(target);
            } else if is_match(target) {
                return false;
            }
        }
        is_included || !has_include
    }
}

impl Page {
    fn matches(&self, url: &Url) -> bool {
        match self {
            Self::None => false,
            Self::Regex(pattern) => {
                let href = url.as_str();
                let origin = url.origin().ascii_serialization();
                pattern.is_match(href)
                    || pattern.is_match(href.get(origin.len()..).unwrap_or_default())
            }
            Self::Simple {
                host,
                path,
                hash,
                query,
            } => {
                let given = |name: &str| {
                    let pair = url.query_pairs().find(|(known, _)| known == name);
                    pair.map(|(_, value)| value.into_owned())
                        .unwrap_or_default()
                };
                host.is_match(&host_of(url))
                    && path.is_match(url.path())
                    && hash
                        .as_ref()
                        .is_none_or(|hash| hash.is_match(&hash_of(url)))
                    && query
                        .iter()
                        .all(|(name, value)| value.is_match(&given(name)))
            }
        }
    }
}

/// The wildcard while a pattern is parsed as an address: `*` may not stand in a host.
const WILDCARD: &str = "_____";

fn simple(pattern: &str, compiler: &Compiler<'_>) -> Option<Page> {
    let pattern = if starts_with_host(pattern) {
        format!("https://{pattern}")
    } else {
        pattern.to_owned()
    };
    let url = parse(&pattern.replace('*', WILDCARD), "https://_____")?;
    let part = |text: &str| compiler.pattern(&format!("^{}$", wild(text)), true);
    let path = url.path();
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let hash = hash_of(&url);
    let query = url
        .query_pairs()
        .map(|(name, value)| Some((name.into(), part(&value)?)));
    Some(Page::Simple {
        host: part(&host_of(&url))?,
        path: compiler.pattern(&format!("^/?{}/?$", wild(path)), true)?,
        hash: if hash.is_empty() {
            None
        } else {
            Some(part(&hash)?)
        },
        query: query.collect::<Option<_>>()?,
    })
}

/// Whether a dot comes before any colon, slash or question mark: a host without its scheme.
fn starts_with_host(pattern: &str) -> bool {
    pattern
        .find(['.', ':', '/', '?'])
        .is_some_and(|at| pattern.as_bytes()[at] == b'.')
}

/// A JavaScript pattern for a text with wildcards.
fn wild(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if "*.+?^${}()|[]\\".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.replace(WILDCARD, ".*")
}

fn parse(url: &str, base: &str) -> Option<Url> {
    Url::parse(base).ok()?.join(url).ok()
}

fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn hash_of(url: &Url) -> String {
    match url.fragment() {
        Some(fragment) if !fragment.is_empty() => format!("#{fragment}"),
        _ => String::new(),
    }
}

/// The deprecated `url` of an experiment: a pattern for the address or for its path.
#[derive(Clone, Debug)]
pub(super) struct UrlPattern(Option<Pattern>);

impl UrlPattern {
    pub(super) fn new(pattern: &Value, compiler: &Compiler<'_>) -> Self {
        Self(
            pattern
                .as_str()
                .and_then(|pattern| compiler.pattern(pattern, false)),
        )
    }

    /// Whether a page is meant; none is where the pattern is not one.
    pub(super) fn matches(&self, url: &str) -> bool {
        let (Some(pattern), false) = (&self.0, url.is_empty()) else {
            return false;
        };
        let rest = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"))
            .unwrap_or(url);
        let path = rest.find('/').map_or(rest, |slash| &rest[slash..]);
        pattern.is_match(url) || pattern.is_match(path)
    }
}

/// The variation that a page's query string forces upon an experiment.
pub fn query_string_override(key: &str, url: &str, variations: usize) -> Option<usize> {
    let query = url.split('?').nth(1)?;
    let query = query.split('#').next()?;
    let value = query.split('&').find_map(|pair| {
        let mut pieces = pair.split('=');
        (pieces.next() == Some(key)).then(|| pieces.next().unwrap_or_default())
    })?;
    index(js::parse_int(value)?, variations)
}

/// Stands for a variation that is not there.
pub(super) const NO_VARIATION: usize = usize::MAX;

/// A forced variation's index; [`NO_VARIATION`] for anything that is none of `variations`.
pub(super) fn forced_index(value: &Value, variations: usize) -> usize {
    value
        .as_f64()
        .and_then(|number| index(number, variations))
        .unwrap_or(NO_VARIATION)
}

/// A number as the index of one of `variations`.
#[expect(clippy::float_cmp, reason = "an index is a whole number")]
fn index(number: f64, variations: usize) -> Option<usize> {
    let is_it = |index: &usize| u32::try_from(*index).is_ok_and(|index| f64::from(index) == number);
    (0..variations).find(is_it)
}

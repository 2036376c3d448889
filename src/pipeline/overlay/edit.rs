//! How overrides change each kind of document.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::value::RawValue;

use super::{
    super::{
        payload::SEALED,
        relay::{self, EncryptionKey},
    },
    text::{Edits, items, join, member, members, string, type_of},
};
use crate::model::{Forced, Override, canonical::write_string};

/// What an override meets in the documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Whether its target is anywhere.
    pub is_there: bool,
    /// Type of the feature's default as the sources have it, the first one met; `None`: it has none.
    pub default_type: Option<&'static str>,
}

/// Overrides by target, and what they have met so far.
pub(super) struct Editor<'o> {
    features: BTreeMap<&'o str, (usize, &'o str)>,
    experiments: BTreeMap<&'o str, usize>,
    /// By position of the override, over all documents.
    pub(super) found: Vec<Found>,
    /// The same for the document under way.
    touched: Vec<bool>,
}

impl<'o> Editor<'o> {
    pub(super) fn new(overrides: &'o [Override]) -> Self {
        let mut editor = Self {
            features: BTreeMap::new(),
            experiments: BTreeMap::new(),
            found: vec![Found::default(); overrides.len()],
            touched: vec![false; overrides.len()],
        };
        for (at, forced) in overrides.iter().enumerate() {
            match &forced.forced {
                Forced::Value(value) => {
                    editor.features.insert(&forced.key, (at, value.as_str()));
                }
                Forced::Off => {
                    editor.experiments.insert(&forced.key, at);
                }
            }
        }
        editor
    }

    /// Positions of the overrides that changed something since this was asked last.
    pub(super) fn take_touched(&mut self) -> Vec<usize> {
        let touched = self.touched.iter_mut().enumerate();
        touched
            .filter_map(|(at, touched)| std::mem::take(touched).then_some(at))
            .collect()
    }

    fn touch(&mut self, at: usize) {
        self.touched[at] = true;
        self.found[at].is_there = true;
    }

    /// Whether an experiment is off; notes that it was there.
    fn is_off(&mut self, tracking_key: Option<&str>) -> bool {
        let at = tracking_key.and_then(|key| self.experiments.get(key).copied());
        at.is_some_and(|at| {
            self.touch(at);
            true
        })
    }

    /// The snapshot document: everything there is, and the list of overrides itself.
    ///
    /// Gives also how many experiments were taken out of its list.
    pub(super) fn snapshot(&mut self, document: &str, listed: String) -> (String, usize) {
        let mut edits = Edits::new(document);
        let mut removed = 0;
        for (key, value) in members(document) {
            match key.as_ref() {
                "features" => self.features(value, &mut edits),
                "experiments" => {
                    removed = self.list(value, "trackingKey", &mut edits);
                }
                "auto_experiments" => {
                    self.list(value, "key", &mut edits);
                }
                _ => {}
            }
        }
        if let Some(value) = member(&members(document), "overrides") {
            edits.replace(value, listed);
        }
        (
            edits.finish().unwrap_or_else(|| document.to_owned()),
            removed,
        )
    }

    /// A consumer's document: entries by tracking key, or a list of entries with a `name`.
    pub(super) fn consumer(&mut self, document: &str) -> Option<String> {
        let mut edits = Edits::new(document);
        if document.trim_start().starts_with('[') {
            let whole = serde_json::from_str::<&RawValue>(document).ok()?;
            self.list(whole, "name", &mut edits);
            return edits.finish();
        }
        let entries = members(document);
        let kept: Vec<bool> = entries
            .iter()
            .map(|(key, _)| !self.is_off(Some(key)))
            .collect();
        if !kept.contains(&false) {
            return None;
        }
        let entries = entries.into_iter().zip(kept).filter(|(_, kept)| *kept);
        Some(join(
            '{',
            entries.map(|((key, value), _)| pair(&key, value.get())),
            '}',
        ))
    }

    /// A connection's payload; its date moves separately. `None`: nothing in it is overridden.
    ///
    /// Fails when members are encrypted and the key is not known or does not open them.
    pub(super) fn payload(
        &mut self,
        document: &str,
        key: Option<&EncryptionKey>,
    ) -> Result<Option<String>, Locked> {
        let all = members(document);
        let mut edits = Edits::new(document);
        for (name, value) in &all {
            let sealed = SEALED.iter().find(|(encrypted, _)| name == encrypted);
            let plain = match sealed {
                Some((_, plain @ ("features" | "experiments"))) => plain,
                Some(_) => continue,
                None => {
                    self.plain_member(name, value, &mut edits);
                    continue;
                }
            };
            // GrowthBook's SDKs take the empty text for "not encrypted".
            let Some(text) = string(value.get()) else {
                continue;
            };
            let key = key.ok_or(Locked)?;
            let opened = relay::decrypt(key, &text).ok_or(Locked)?;
            let opened_value: &RawValue = serde_json::from_str(&opened).or(Err(Locked))?;
            let mut inner = Edits::new(&opened);
            self.plain_member(plain, opened_value, &mut inner);
            if let Some(changed) = inner.finish() {
                let closed = relay::encrypt(key, plain, &changed);
                edits.replace(value.get(), format!("\"{closed}\""));
            }
        }
        Ok(edits.finish())
    }

    fn plain_member<'a>(&mut self, name: &str, value: &'a RawValue, edits: &mut Edits<'a>) {
        match name {
            "features" => self.features(value, edits),
            "experiments" => {
                self.list(value, "key", edits);
            }
            _ => {}
        }
    }

    /// A list without the experiments that are off; gives their number.
    fn list<'a>(&mut self, value: &'a RawValue, key: &str, edits: &mut Edits<'a>) -> usize {
        let all = items(value.get());
        let number = all.len();
        let mut kept = Vec::with_capacity(number);
        for item in all {
            let name = member(&members(item.get()), key).and_then(string);
            if !self.is_off(name.as_deref()) {
                kept.push(Cow::Borrowed(item.get()));
            }
        }
        let removed = number - kept.len();
        if removed > 0 {
            edits.replace(value.get(), join('[', kept.into_iter(), ']'));
        }
        removed
    }

    fn features<'a>(&mut self, value: &'a RawValue, edits: &mut Edits<'a>) {
        for (key, feature) in members(value.get()) {
            if let Some((at, value)) = self.features.get(key.as_ref()).copied() {
                self.touch(at);
                let all = members(feature.get());
                let default = member(&all, "defaultValue").map(type_of);
                let found = &mut self.found[at].default_type;
                *found = found.or(default);
                // Its experiments are there all the same, for whoever turned one of them off too.
                self.without_off(&key, &all);
                edits.replace(feature.get(), forced(&all, value));
            } else if !self.experiments.is_empty() {
                let all = members(feature.get());
                if let Some((rules, kept)) = self.without_off(&key, &all) {
                    edits.replace(rules, kept);
                }
            }
        }
    }

    /// A feature's list of rules and what is left of it; `None`: all of it.
    fn without_off<'a>(
        &mut self,
        feature: &str,
        all: &[(Cow<'_, str>, &'a RawValue)],
    ) -> Option<(&'a str, String)> {
        let rules = member(all, "rules")?;
        let listed = items(rules);
        let mut kept = Vec::with_capacity(listed.len());
        for rule in &listed {
            let is_off = tracking_key(feature, rule).is_some_and(|key| self.is_off(Some(&key)));
            if !is_off {
                kept.push(Cow::Borrowed(rule.get()));
            }
        }
        (kept.len() < listed.len()).then(|| (rules, join('[', kept.into_iter(), ']')))
    }
}

/// A connection's document is encrypted and cannot be opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Locked;

/// The tracking key of a rule that is an experiment: its own, else the feature's (GrowthBook sdk-js, `src/core.ts`).
fn tracking_key(feature: &str, rule: &RawValue) -> Option<String> {
    let all = members(rule.get());
    let is_experiment = ["variations", "contextualVariations"]
        .iter()
        .any(|name| member(&all, name).is_some_and(|value| type_of(value) == "list"));
    // A rule that forces a value does that, whatever else it holds.
    if !is_experiment || member(&all, "force").is_some() {
        return None;
    }
    let own = member(&all, "key").and_then(string);
    Some(own.unwrap_or_else(|| feature.to_owned()))
}

/// Tracking keys of the experiments in a feature's rules.
pub(super) fn experiments_of(key: &str, feature: &RawValue) -> Vec<String> {
    let all = members(feature.get());
    let rules = member(&all, "rules").map(items).unwrap_or_default();
    let keys = rules.into_iter().filter_map(|rule| tracking_key(key, rule));
    keys.collect()
}

/// A feature with this value and without rules; its other members stay as they are and where they are.
fn forced(all: &[(Cow<'_, str>, &RawValue)], value: &str) -> String {
    let has_default = all.iter().any(|(name, _)| name == "defaultValue");
    let first = (!has_default).then(|| pair("defaultValue", value));
    let others = all.iter().filter(|(name, _)| name != "rules");
    let others = others.map(|(name, text)| match name.as_ref() {
        "defaultValue" => pair(name, value),
        _ => pair(name, text.get()),
    });
    join('{', first.into_iter().chain(others), '}')
}

fn pair(name: &str, text: &str) -> Cow<'static, str> {
    let mut out = String::with_capacity(name.len() + text.len() + 3);
    write_string(name, &mut out);
    out.push(':');
    out.push_str(text);
    Cow::Owned(out)
}

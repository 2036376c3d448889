//! One feature definition, or one auto experiment, of an SDK payload.

use std::sync::Arc;

use super::{
    BadItem,
    condition::{self, KnownGroups},
    limits::{few_variations, near_variations},
    members::{Members, wrong},
};
use crate::model::{CanonicalJson, Feature, Json, json};

type Warnings = Vec<(&'static str, BadItem)>;

/// Checks a definition and spells it canonically.
pub(super) fn read(
    mut value: Json<'_>,
    groups: &KnownGroups<'_>,
) -> Result<(Feature, Warnings), BadItem> {
    let mut warnings = Vec::new();
    let mut parents = Vec::new();
    {
        let feature = Members::of(&value, "")?;
        feature.object("metadata")?;
        for (i, rule) in feature.list("rules")?.into_iter().flatten().enumerate() {
            rule_at(
                rule,
                &format!(".rules[{i}]"),
                groups,
                &mut parents,
                &mut warnings,
            )?;
        }
    }
    // `source` is ours in the snapshot; a definition has no such member.
    if let Some(members) = value.as_object_mut() {
        members.remove("source");
    }
    Ok((
        Feature {
            definition: CanonicalJson::from_json(&value),
            parents,
        },
        warnings,
    ))
}

/// Checks an auto experiment and spells it canonically.
pub(super) fn read_auto_experiment(
    mut value: Json<'_>,
    groups: &KnownGroups<'_>,
) -> Result<CanonicalJson, BadItem> {
    {
        let experiment = Members::of(&value, "")?;
        experiment.required_text("key")?;
        experiment.list("urlPatterns")?;
        rule_members(&experiment)?;
        // An unknown operator here is reported by the feature rules that share the condition, if at all.
        prerequisites(&experiment, groups, &mut Vec::new(), &mut Vec::new())?;
    }
    if let Some(members) = value.as_object_mut() {
        members.remove("source");
    }
    Ok(CanonicalJson::from_json(&value))
}

fn rule_at(
    rule: &Json<'_>,
    at: &str,
    groups: &KnownGroups<'_>,
    parents: &mut Vec<Arc<str>>,
    warnings: &mut Warnings,
) -> Result<(), BadItem> {
    let rule = Members::of(rule, at)?;
    rule_members(&rule)?;
    split(&rule, warnings)?;
    let variations = rule.list("variations")?.map_or(0, <[_]>::len);
    warnings.extend(near_variations(at, variations));
    if let Some(condition) = rule.get("condition") {
        condition::warnings(condition, &rule.path("condition"), groups, warnings);
    }
    prerequisites(&rule, groups, parents, warnings)
}

/// The types of a rule's members that need no further look.
fn rule_members(rule: &Members<'_>) -> Result<(), BadItem> {
    for name in [
        "id",
        "key",
        "hashAttribute",
        "fallbackAttribute",
        "seed",
        "name",
    ] {
        rule.text(name)?;
    }
    for name in ["hashVersion", "bucketVersion", "minBucketVersion"] {
        rule.number(name)?;
    }
    if let Some(phase) = rule
        .get("phase")
        .filter(|phase| !matches!(phase, Json::Text(_) | Json::Number(_)))
    {
        return Err(wrong(&rule.path("phase"), phase, "a string"));
    }
    if let Some(variations) = rule.get("variations").and_then(Json::as_list) {
        few_variations(rule.path("variations"), variations.len())?;
    }
    rule.boolean("disableStickyBucketing")?;
    rule.object("condition")?;
    rule.object("metadata")?;
    rule.range("range")?;
    rule.ranges("ranges")?;
    objects(rule, "meta")?;
    objects(rule, "tracks")?;
    for (i, filter) in objects(rule, "filters")?.iter().enumerate() {
        let at = format!("{}[{i}]", rule.path("filters"));
        let filter = Members::of(filter, &at)?;
        filter.text("attribute")?;
        filter.text("seed")?;
        filter.number("hashVersion")?;
        filter.ranges("ranges")?;
    }
    namespace(rule)
}

fn objects<'a>(rule: &Members<'a>, name: &str) -> Result<&'a [Json<'a>], BadItem> {
    let Some(list) = rule.list(name)? else {
        return Ok(&[]);
    };
    for (i, value) in list.iter().enumerate() {
        if value.as_object().is_none() {
            return Err(wrong(
                &format!("{}[{i}]", rule.path(name)),
                value,
                "an object",
            ));
        }
    }
    Ok(list)
}

fn namespace(rule: &Members<'_>) -> Result<(), BadItem> {
    let Some(value) = rule.get("namespace") else {
        return Ok(());
    };
    let is_number = |value: &Json<'_>| value.as_f64().is_some_and(f64::is_finite);
    let is_good = value.as_list().is_some_and(|parts| match parts {
        [id, low, high] => id.as_str().is_some() && is_number(low) && is_number(high),
        _ => false,
    });
    if is_good {
        Ok(())
    } else {
        Err(wrong(
            &rule.path("namespace"),
            value,
            "an array of name, start, end",
        ))
    }
}

/// Variations, weights and coverage: types are checked, sums and counts are only warned about.
fn split(rule: &Members<'_>, warnings: &mut Warnings) -> Result<(), BadItem> {
    let variations = rule.list("variations")?;
    let weights = rule.numbers("weights")?;
    let coverage = rule.number("coverage")?;
    let mut warn = |code, name: &str, message: String| {
        warnings.push((code, BadItem::new(rule.path(name), message)));
    };
    if let Some(coverage) = coverage.filter(|coverage| !(0.0..=1.0).contains(coverage)) {
        warn(
            "odd_coverage",
            "coverage",
            format!("is {coverage}, outside 0 to 1"),
        );
    }
    let Some(weights) = weights else {
        return Ok(());
    };
    let sum: f64 = weights.iter().sum();
    if !(0.99..=1.01).contains(&sum) {
        warn(
            "odd_weights",
            "weights",
            format!("add up to {sum}; SDKs then split evenly"),
        );
    }
    if let Some(variations) = variations.filter(|variations| variations.len() != weights.len()) {
        let message = format!(
            "are {} for {} variations; SDKs then split evenly",
            weights.len(),
            variations.len()
        );
        warn("odd_weights", "weights", message);
    }
    Ok(())
}

fn prerequisites(
    rule: &Members<'_>,
    groups: &KnownGroups<'_>,
    parents: &mut Vec<Arc<str>>,
    warnings: &mut Warnings,
) -> Result<(), BadItem> {
    for (i, parent) in objects(rule, "parentConditions")?.iter().enumerate() {
        let at = format!("{}[{i}]", rule.path("parentConditions"));
        let parent = Members::of(parent, &at)?;
        let id = parent.required_text("id")?;
        parent.boolean("gate")?;
        if let Some(condition) = parent.object("condition")? {
            members_warnings(condition, &at, groups, warnings);
        }
        if !parents.iter().any(|known| &**known == id) {
            parents.push(id.into());
        }
    }
    Ok(())
}

fn members_warnings(
    condition: &json::Members<'_>,
    at: &str,
    groups: &KnownGroups<'_>,
    warnings: &mut Warnings,
) {
    // A parent's condition is asked about `value`; its operators are the same.
    for (_, operand) in condition.iter() {
        condition::warnings(operand, at, groups, warnings);
    }
}

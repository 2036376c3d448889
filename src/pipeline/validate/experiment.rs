//! One experiment of the management API, read into the neutral model.

use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::{BadItem, limits::few_variations, members::Members};
use crate::{
    model::{CanonicalJson, Delivery, Experiment, Json, Namespace, Phase, Status, Variation, json},
    pipeline::dates::parse_date,
};

/// The id of an experiment that cannot be read otherwise, so that its last good version can be found.
pub(super) fn id_of(raw: &RawValue) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Id {
        id: String,
    }
    serde_json::from_str::<Id>(raw.get())
        .ok()
        .map(|item| item.id)
}

/// Reads an experiment; `delivery` is left for `adapt`.
pub(super) fn read(value: Json<'_>) -> Result<Experiment, BadItem> {
    let experiment = Members::of(&value, "")?;
    let text = |name| {
        experiment
            .text(name)
            .map(|text| text.unwrap_or_default().to_owned())
    };
    let schedule = experiment.object("statusUpdateSchedule")?;
    let stop = schedule
        .and_then(|schedule| schedule.get("stopAt"))
        .and_then(Json::as_str);
    Ok(Experiment {
        id: experiment.required_text("id")?.to_owned(),
        tracking_key: experiment.required_text("trackingKey")?.to_owned(),
        name: text("name")?,
        hypothesis: text("hypothesis")?,
        owner: text("owner")?,
        project: text("project")?,
        status: status(experiment.required_text("status")?),
        archived: experiment.boolean("archived")?.unwrap_or(false),
        hash_attribute: experiment.text("hashAttribute")?.unwrap_or("id").to_owned(),
        fallback_attribute: experiment.text("fallbackAttribute")?.map(str::to_owned),
        hash_version: if experiment.number("hashVersion")? == Some(1.0) {
            1
        } else {
            2
        },
        variations: variations(&experiment)?,
        phases: phases(&experiment)?,
        custom_fields: experiment
            .object("customFields")?
            .map(json::Members::to_map)
            .unwrap_or_default(),
        scheduled_stop: stop.and_then(parse_date),
        updated: date(&experiment, "dateUpdated")?,
        delivery: Delivery::default(),
        definition: definition(value),
    })
}

fn status(word: &str) -> Status {
    match word {
        "draft" => Status::Draft,
        "running" => Status::Running,
        "stopped" => Status::Stopped,
        _ => Status::Unknown,
    }
}

fn variations(experiment: &Members<'_>) -> Result<Vec<Variation>, BadItem> {
    let list = experiment.list("variations")?;
    let list = list.ok_or_else(|| BadItem::new(".variations", "is missing"))?;
    few_variations(".variations", list.len())?;
    let read = |(i, value)| {
        let at = format!(".variations[{i}]");
        let variation = Members::of(value, &at)?;
        let text = |name| {
            variation
                .text(name)
                .map(|text| text.unwrap_or_default().to_owned())
        };
        Ok(Variation {
            id: text("variationId")?,
            key: text("key")?,
            name: text("name")?,
        })
    };
    list.iter().enumerate().map(read).collect()
}

fn phases(experiment: &Members<'_>) -> Result<Vec<Phase>, BadItem> {
    let list = experiment.list("phases")?;
    let list = list.ok_or_else(|| BadItem::new(".phases", "is missing"))?;
    list.iter()
        .enumerate()
        .map(|(i, value)| phase(value, &format!(".phases[{i}]")))
        .collect()
}

fn phase(value: &Json<'_>, at: &str) -> Result<Phase, BadItem> {
    let phase = Members::of(value, at)?;
    let text = |name| {
        phase
            .text(name)
            .map(|text| text.unwrap_or_default().to_owned())
    };
    let opaque = |name| -> Result<_, BadItem> {
        phase.list(name)?;
        Ok(phase.get(name).map(CanonicalJson::from_json))
    };
    Ok(Phase {
        name: text("name")?,
        started: date(&phase, "dateStarted")?,
        ended: date(&phase, "dateEnded")?,
        seed: text("seed")?,
        coverage: phase.number("coverage")?.unwrap_or(1.0),
        split: split(&phase)?,
        targeting_condition: text("targetingCondition")?,
        saved_group_targeting: opaque("savedGroupTargeting")?,
        prerequisites: opaque("prerequisites")?,
        namespace: namespace(&phase)?,
    })
}

fn split(phase: &Members<'_>) -> Result<Vec<(String, f64)>, BadItem> {
    let path = phase.path("trafficSplit");
    let read = |(i, value)| {
        let at = format!("{path}[{i}]");
        let arm = Members::of(value, &at)?;
        let weight = arm
            .number("weight")?
            .ok_or_else(|| BadItem::new(arm.path("weight"), "is missing"))?;
        Ok((arm.required_text("variationId")?.to_owned(), weight))
    };
    phase
        .list("trafficSplit")?
        .into_iter()
        .flatten()
        .enumerate()
        .map(read)
        .collect()
}

fn namespace(phase: &Members<'_>) -> Result<Option<Namespace>, BadItem> {
    let path = phase.path("namespace");
    let Some(value) = phase.get("namespace") else {
        return Ok(None);
    };
    let namespace = Members::of(value, &path)?;
    let single = namespace.range("range")?;
    let ranges = namespace
        .ranges("ranges")?
        .or_else(|| single.map(|range| vec![range]));
    let is_enabled = namespace.boolean("enabled")?.unwrap_or(true);
    let id = namespace
        .text("namespaceId")?
        .unwrap_or_default()
        .to_owned();
    Ok(is_enabled.then(|| Namespace {
        id,
        ranges: ranges.unwrap_or_default(),
    }))
}

/// A date that cannot be read is `None`: consumers that need it withhold the experiment, the others do not care.
fn date(members: &Members<'_>, name: &str) -> Result<Option<OffsetDateTime>, BadItem> {
    Ok(members.text(name)?.and_then(parse_date))
}

/// The experiment as the snapshot shows it: without what changes and means nothing.
///
/// `dateUpdated` moves with every touch; screenshots are signed URLs, new on every fetch; tags and linked features are
/// sets that the upstream lists in any order.
fn definition(mut value: Json<'_>) -> CanonicalJson {
    if let Some(members) = value.as_object_mut() {
        members.remove("dateUpdated");
        members.remove("source");
        for name in ["tags", "linkedFeatures"] {
            sort_texts(members, name);
        }
        let variations = members.get_mut("variations").and_then(Json::as_list_mut);
        for variation in variations
            .into_iter()
            .flatten()
            .filter_map(Json::as_object_mut)
        {
            variation.remove("screenshots");
        }
    }
    CanonicalJson::from_json(&value)
}

fn sort_texts(members: &mut json::Members<'_>, name: &str) {
    if let Some(list) = members.get_mut(name).and_then(Json::as_list_mut) {
        list.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
}

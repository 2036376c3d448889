//! From an experiment as upstream has it to what consumer formats need.
//!
//! Reads the last phase and the custom fields into [`Delivery`], and decides who is shown at all. It looks at one
//! experiment at a time and refuses nothing: what it cannot read it notes in `problems`, and the views withhold the
//! experiment for it. Time comes in as an argument.

use std::collections::HashSet;

use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

use super::dates::parse_date;
use crate::model::{Delivery, Experiment, Status};

/// Identifier type of an experiment that names none.
pub const DEFAULT_IDENTIFIER_TYPE: &str = "edge-unique";

/// Event stream of an experiment that names none.
pub const DEFAULT_STREAM_NAME: &str = "product_metrics.web_base";

/// How long a stopped experiment stays listed.
///
/// Consumers hold on to their configuration for a while; those that see an end date stop on time by themselves.
const SHOWN_AFTER_STOP: Duration = Duration::hours(24);

/// Which custom fields feed the consumer formats, for one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldNames {
    /// List of host names.
    pub domains: String,
    /// List of database names.
    pub wikis: String,
    /// Text, [`DEFAULT_IDENTIFIER_TYPE`] when absent.
    pub user_identifier_type: String,
    /// Text, [`DEFAULT_STREAM_NAME`] when absent.
    pub stream_name: String,
    /// List of attribute names.
    pub contextual_attributes: String,
    /// Date on which the experiment ends.
    pub end: String,
    /// An experiment without any end ends this long after its start.
    pub max_duration: Duration,
}

#[cfg(test)]
impl Default for FieldNames {
    /// What `settings::Fields` has as defaults; the settings own them, tests only need some.
    fn default() -> Self {
        let name = |text: &str| text.to_owned();
        Self {
            domains: name("domains"),
            wikis: name("wikis"),
            user_identifier_type: name("user_identifier_type"),
            stream_name: name("stream_name"),
            contextual_attributes: name("contextual_attributes"),
            end: name("end"),
            max_duration: Duration::days(90),
        }
    }
}

/// Fills in `experiment.delivery` from the last phase, the scheduled stop and the custom fields.
///
/// The end is the first of: the phase's end, the scheduled stop, the custom field, start + `max_duration`. The custom
/// field is read only where it decides, so that a typo in it cannot take down an experiment that ends anyhow.
pub fn adapt(experiment: &mut Experiment, fields: &FieldNames) {
    let mut reader = Reader {
        fields: &experiment.custom_fields,
        problems: Vec::new(),
    };
    let phase = experiment.phases.last();
    let start = phase.and_then(|phase| phase.started);
    let end = phase
        .and_then(|phase| phase.ended)
        .or(experiment.scheduled_stop)
        .or_else(|| match reader.date(&fields.end) {
            Field::Read(end) => Some(end),
            Field::Absent => start.and_then(|start| start.checked_add(fields.max_duration)),
            Field::Unreadable => None,
        });
    let domains = reader.list(&fields.domains, str::to_ascii_lowercase);
    let wikis = reader.list(&fields.wikis, str::to_owned);
    let user_identifier_type = reader
        .text(&fields.user_identifier_type)
        .unwrap_or_else(|| DEFAULT_IDENTIFIER_TYPE.to_owned());
    let stream_name = reader
        .text(&fields.stream_name)
        .unwrap_or_else(|| DEFAULT_STREAM_NAME.to_owned());
    let contextual_attributes = reader.list(&fields.contextual_attributes, str::to_owned);
    let sample_unit = reader.text("sample_unit");
    let schema_id = reader.text("schema_id");
    experiment.delivery = Delivery {
        start,
        end,
        domains,
        wikis,
        user_identifier_type,
        stream_name,
        contextual_attributes,
        sample_unit,
        schema_id,
        problems: reader.problems,
    };
}

/// Whether consumers are shown the experiment: running, or stopped less than 24 hours before `now`.
///
/// `now` is the time of the last successful poll of the experiment's source, not wall time: while a source is down
/// nothing of it falls off.
pub fn is_shown(experiment: &Experiment, now: OffsetDateTime) -> bool {
    !experiment.archived
        && match experiment.status {
            Status::Running => true,
            // Without a readable end there is no telling how old it is.
            Status::Stopped => experiment
                .stopped_at()
                .is_some_and(|end| now - end < SHOWN_AFTER_STOP),
            Status::Draft | Status::Unknown => false,
        }
}

/// When a shown, stopped experiment will fall off; `None` where time alone changes nothing.
pub fn next_change(experiment: &Experiment, now: OffsetDateTime) -> Option<OffsetDateTime> {
    if !is_shown(experiment, now) {
        return None;
    }
    experiment.stopped_at()?.checked_add(SHOWN_AFTER_STOP)
}

/// What became of a custom field.
enum Field<T> {
    Read(T),
    Absent,
    /// Present, and noted as a problem.
    Unreadable,
}

/// Reads custom fields and collects what could not be read.
struct Reader<'a> {
    fields: &'a Map<String, Value>,
    problems: Vec<(String, String)>,
}

impl<'a> Reader<'a> {
    /// The field's value; null and blank text count as absent.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| match value {
            Value::Null => false,
            Value::String(text) => !text.trim().is_empty(),
            _ => true,
        })
    }

    fn problem(&mut self, name: &str, what: String) {
        self.problems.push((name.to_owned(), what));
    }

    fn text(&mut self, name: &str) -> Option<String> {
        match self.get(name)? {
            Value::String(text) => Some(text.trim().to_owned()),
            other => {
                self.problem(name, format!("is {}, not text", kind(other)));
                None
            }
        }
    }

    fn date(&mut self, name: &str) -> Field<OffsetDateTime> {
        match self.get(name) {
            None => Field::Absent,
            Some(Value::String(text)) => parse_date(text).map_or_else(
                || {
                    self.problem(name, format!("is {text:?}, not a date"));
                    Field::Unreadable
                },
                Field::Read,
            ),
            Some(other) => {
                self.problem(name, format!("is {}, not a date", kind(other)));
                Field::Unreadable
            }
        }
    }

    /// A JSON array of strings, or comma-separated text; trimmed, without blanks, each item once, in order.
    fn list(&mut self, name: &str, spell: fn(&str) -> String) -> Vec<String> {
        let mut list = Vec::new();
        match self.get(name) {
            None => {}
            Some(Value::String(text)) if text.trim_start().starts_with('[') => {
                // GrowthBook's own form stores a choice of several as the text of a JSON array.
                match serde_json::from_str::<Vec<String>>(text) {
                    Ok(items) => push_all(&mut list, items.iter().map(String::as_str), spell),
                    Err(_) => self.problem(
                        name,
                        "begins with `[` and is not a JSON array of strings".to_owned(),
                    ),
                }
            }
            Some(Value::String(text)) => push_all(&mut list, text.split(','), spell),
            Some(Value::Array(items)) => match items.iter().find(|item| !item.is_string()) {
                None => push_all(&mut list, items.iter().filter_map(Value::as_str), spell),
                Some(other) => {
                    self.problem(name, format!("holds {}, not only strings", kind(other)));
                }
            },
            Some(other) => self.problem(name, format!("is {}, not a list", kind(other))),
        }
        list
    }
}

fn push_all<'a>(
    list: &mut Vec<String>,
    items: impl Iterator<Item = &'a str>,
    spell: fn(&str) -> String,
) {
    let mut seen = HashSet::new();
    let items = items.map(str::trim).filter(|item| !item.is_empty());
    list.extend(items.map(spell).filter(|item| seen.insert(item.clone())));
}

/// The JSON type, with its article.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::model::{CanonicalJson, Phase};

    fn experiment(status: Status, phase: Option<Phase>, custom_fields: &Value) -> Experiment {
        Experiment {
            id: "exp_1".to_owned(),
            tracking_key: "sticky-header-2026".to_owned(),
            name: String::new(),
            hypothesis: String::new(),
            owner: String::new(),
            project: String::new(),
            status,
            archived: false,
            hash_attribute: "id".to_owned(),
            fallback_attribute: None,
            hash_version: 2,
            variations: Vec::new(),
            phases: phase.into_iter().collect(),
            custom_fields: custom_fields.as_object().unwrap().clone(),
            scheduled_stop: None,
            updated: None,
            delivery: Delivery::default(),
            definition: CanonicalJson::from_value(&json!({})),
        }
    }

    fn phase(started: Option<OffsetDateTime>, ended: Option<OffsetDateTime>) -> Phase {
        Phase {
            name: "Main".to_owned(),
            started,
            ended,
            seed: "s".to_owned(),
            coverage: 1.0,
            split: Vec::new(),
            targeting_condition: String::new(),
            saved_group_targeting: None,
            prerequisites: None,
            namespace: None,
        }
    }

    fn fields() -> FieldNames {
        FieldNames {
            domains: "domains".to_owned(),
            wikis: "wikis".to_owned(),
            user_identifier_type: "user_identifier_type".to_owned(),
            stream_name: "stream_name".to_owned(),
            contextual_attributes: "contextual_attributes".to_owned(),
            end: "end".to_owned(),
            max_duration: Duration::days(90),
        }
    }

    fn adapted(custom_fields: &Value) -> Delivery {
        let start = datetime!(2026-09-01 14:30 UTC);
        let mut experiment = experiment(
            Status::Running,
            Some(phase(Some(start), None)),
            custom_fields,
        );
        adapt(&mut experiment, &fields());
        experiment.delivery
    }

    #[track_caller]
    fn check_list(value: &Value, expected: &[&str]) {
        let delivery = adapted(&json!({ "domains": value }));
        assert_eq!(delivery.domains, expected);
        assert_eq!(delivery.problems, []);
    }

    #[track_caller]
    fn check_problem(custom_fields: &Value, field: &str, what: &str) {
        let problems = adapted(custom_fields).problems;
        assert_eq!(problems, [(field.to_owned(), what.to_owned())]);
    }

    #[test]
    fn lists_are_arrays_or_text_trimmed_without_blanks_or_repeats() {
        check_list(
            &json!(["FR.wikipedia.org", " a "]),
            &["fr.wikipedia.org", "a"],
        );
        check_list(&json!("b.org, A.org,,a.org , "), &["b.org", "a.org"]);
        check_list(&json!(r#" ["b.org","a.org"]"#), &["b.org", "a.org"]);
        check_list(&json!([]), &[]);
        check_list(&json!("  "), &[]);
        check_list(&Value::Null, &[]);
    }

    #[test]
    fn wikis_keep_their_case() {
        assert_eq!(adapted(&json!({"wikis": "frWiki"})).wikis, ["frWiki"]);
    }

    #[test]
    fn absent_fields_get_their_defaults() {
        let delivery = adapted(&json!({"stream_name": "", "user_identifier_type": null}));
        assert_eq!(delivery.user_identifier_type, "edge-unique");
        assert_eq!(delivery.stream_name, "product_metrics.web_base");
        assert_eq!(delivery.sample_unit, None);
        assert_eq!(delivery.schema_id, None);
        assert_eq!(delivery.start, Some(datetime!(2026-09-01 14:30 UTC)));
        assert_eq!(delivery.end, Some(datetime!(2026-11-30 14:30 UTC)));
        assert_eq!(delivery.problems, []);
    }

    #[test]
    fn a_field_of_the_wrong_type_is_a_problem_naming_it() {
        check_problem(&json!({"domains": 7}), "domains", "is a number, not a list");
        check_problem(
            &json!({"wikis": ["a", 1]}),
            "wikis",
            "holds a number, not only strings",
        );
        check_problem(
            &json!({"wikis": "[\"a\","}),
            "wikis",
            "begins with `[` and is not a JSON array of strings",
        );
        check_problem(
            &json!({"stream_name": {}}),
            "stream_name",
            "is an object, not text",
        );
        check_problem(
            &json!({"sample_unit": true}),
            "sample_unit",
            "is a boolean, not text",
        );
        check_problem(&json!({"end": 5}), "end", "is a number, not a date");
        check_problem(&json!({"end": "soon"}), "end", "is \"soon\", not a date");
    }

    #[test]
    fn the_end_is_the_phase_then_the_schedule_then_the_field_then_the_longest_duration() {
        let start = datetime!(2026-09-01 0:00 UTC);
        let mut experiment = experiment(
            Status::Running,
            Some(phase(Some(start), Some(datetime!(2026-09-02 0:00 UTC)))),
            &json!({"end": "2026-09-04"}),
        );
        experiment.scheduled_stop = Some(datetime!(2026-09-03 0:00 UTC));
        let mut end = |change: fn(&mut Experiment)| {
            change(&mut experiment);
            adapt(&mut experiment, &fields());
            experiment.delivery.end
        };
        assert_eq!(end(|_| {}), Some(datetime!(2026-09-02 0:00 UTC)));
        assert_eq!(
            end(|e| e.phases[0].ended = None),
            Some(datetime!(2026-09-03 0:00 UTC))
        );
        assert_eq!(
            end(|e| e.scheduled_stop = None),
            Some(datetime!(2026-09-04 0:00 UTC))
        );
        assert_eq!(
            end(|e| e.custom_fields.clear()),
            Some(datetime!(2026-11-30 0:00 UTC))
        );
        assert_eq!(end(|e| e.phases.clear()), None);
    }

    #[test]
    fn an_unreadable_end_does_not_matter_where_another_end_decides() {
        let start = datetime!(2026-09-01 0:00 UTC);
        let ended = Some(datetime!(2026-09-02 0:00 UTC));
        let mut experiment = experiment(
            Status::Running,
            Some(phase(Some(start), ended)),
            &json!({"end": "soon"}),
        );
        adapt(&mut experiment, &fields());
        assert_eq!(experiment.delivery.problems, []);
    }

    #[test]
    fn a_stopped_experiment_is_shown_for_a_day() {
        let ended = datetime!(2026-09-02 0:00 UTC);
        let shown = |status, ended, now| {
            let experiment = experiment(status, Some(phase(None, ended)), &json!({}));
            (is_shown(&experiment, now), next_change(&experiment, now))
        };
        let off = ended + Duration::DAY;
        let before = off - Duration::SECOND;
        assert_eq!(
            shown(Status::Stopped, Some(ended), before),
            (true, Some(off))
        );
        assert_eq!(shown(Status::Stopped, Some(ended), off), (false, None));
        assert_eq!(shown(Status::Stopped, None, before), (false, None));
        assert_eq!(shown(Status::Running, Some(ended), off), (true, None));
        assert_eq!(shown(Status::Draft, Some(ended), before), (false, None));
        assert_eq!(shown(Status::Unknown, Some(ended), before), (false, None));
    }

    #[test]
    fn an_archived_experiment_is_not_shown() {
        let mut experiment = experiment(Status::Running, None, &json!({}));
        experiment.archived = true;
        assert!(!is_shown(&experiment, datetime!(2026-09-02 0:00 UTC)));
    }
}

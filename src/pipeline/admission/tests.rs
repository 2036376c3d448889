use serde_json::{Value, json};
use time::OffsetDateTime;

use super::*;
use crate::pipeline::{
    FieldNames,
    guard::test_support::{listed, rules},
    stitch::{self, StitchInput},
};

fn features(number: usize) -> Value {
    let feature = |i: usize| (format!("f{i}"), json!({"defaultValue": i}));
    let features: serde_json::Map<_, _> = (0..number).map(feature).collect();
    json!({ "features": features })
}

fn experiments(number: usize) -> Value {
    let list: Vec<Value> = (0..number).map(|i| listed(&format!("e{i}"))).collect();
    json!({ "experiments": list })
}

fn side(input: &SourceInput) -> Side {
    let input = StitchInput {
        source: "s".into(),
        precedence: 1,
        payloads: input
            .payloads
            .values()
            .map(|part| Arc::clone(&part.payload))
            .collect(),
        experiments: input
            .experiments
            .as_ref()
            .map(|part| Arc::clone(&part.list)),
        checked_at: OffsetDateTime::UNIX_EPOCH,
    };
    Side {
        stitched: stitch::stitch("test", &[input]),
        ..Side::default()
    }
}

fn news(old: &mut SourceInput, payloads: &[(&str, usize)], list: Option<usize>) -> Vec<Content> {
    let mut news = Vec::new();
    for (key, number) in payloads {
        let raw = features(*number).to_string().into();
        news.extend(old.read_payload("s", key, &raw).unwrap());
    }
    if let Some(number) = list {
        let raw = experiments(number).to_string().into();
        let fields = FieldNames::default();
        news.extend(old.read_experiments("s", &raw, &fields).unwrap());
    }
    news
}

fn accepted(payloads: &[(&str, usize)], list: Option<usize>) -> SourceInput {
    let mut empty = SourceInput::default();
    let news = news(&mut empty, payloads, list);
    empty.with(&news)
}

fn verdict(old: &SourceInput, news: &[Content], is_first: bool) -> Verdict {
    judged(old, news, is_first, None)
}

fn judged(old: &SourceInput, news: &[Content], is_first: bool, live: Option<&Live>) -> Verdict {
    admit(&Offer {
        source: &"s".into(),
        rules: &rules(),
        old,
        news,
        is_first,
        live,
        takes_part: &|input| input.experiments.is_some(),
        side: &side,
    })
}

/// Numbers of features and experiments taken, what is parked, and the guards.
#[track_caller]
fn check(
    (payloads, list): (&[(&str, usize)], usize),
    (new_payloads, new_list): (&[(&str, usize)], usize),
    parked: &[&str],
    why: &[&str],
) -> Verdict {
    let mut old = accepted(payloads, Some(list));
    let news = news(&mut old, new_payloads, Some(new_list));
    let verdict = verdict(&old, &news, false);
    let kinds: Vec<_> = verdict.parked.iter().map(|c| Part::of(c).kind()).collect();
    assert_eq!(kinds, parked);
    let found: Vec<_> = guards(&verdict.trips)
        .into_iter()
        .map(Guard::as_str)
        .collect();
    assert_eq!(found, why);
    verdict
}

#[test]
fn what_nobody_objects_to_is_taken_whole() {
    let verdict = check((&[("k", 10)], 10), (&[("k", 9)], 11), &[], &[]);
    assert!(verdict.is_news);
    assert_eq!(verdict.input, accepted(&[("k", 9)], Some(11)));
    let verdict = check((&[("k", 10)], 10), (&[("k", 10)], 10), &[], &[]);
    assert!(!verdict.is_news);
}

#[test]
fn a_bad_list_is_parked_and_the_payload_is_taken() {
    let verdict = check(
        (&[("k", 10)], 10),
        (&[("k", 11)], 5),
        &["experiments"],
        &["shrink"],
    );
    assert_eq!(verdict.input, accepted(&[("k", 11)], Some(10)));
    assert_eq!(verdict.difference.experiments.removed.len(), 5);
    assert_eq!(verdict.difference.features.added, [""; 0], "they are taken");
    assert_eq!(verdict.trips[0].0, Part::Experiments);
}

#[test]
fn a_bad_payload_is_parked_and_everything_else_is_taken() {
    let old: &[_] = &[("a", 10), ("b", 10)];
    let verdict = check(
        (old, 10),
        (&[("a", 5), ("b", 11)], 11),
        &["payload"],
        &["shrink"],
    );
    assert_eq!(verdict.input, accepted(&[("a", 10), ("b", 11)], Some(11)));
    assert_eq!(verdict.trips[0].1.subject, "payload a");
    let verdict = check(
        (old, 10),
        (&[("a", 0), ("b", 11)], 11),
        &["payload"],
        &["empty_features"],
    );
    assert_eq!(verdict.input, accepted(&[("a", 10), ("b", 11)], Some(11)));
}

#[test]
fn an_empty_first_load_is_parked_whole() {
    let mut nothing = SourceInput::default();
    let empty = news(&mut nothing, &[("k", 0)], Some(0));
    let parked = verdict(&nothing, &empty, true);
    assert_eq!(parked.parked.len(), 2);
    assert!(!parked.is_news);
    assert_eq!(parked.trips[0].1.guard, Guard::EmptySource);
    assert!(
        verdict(
            &nothing,
            &news(&mut nothing.clone(), &[("k", 1)], Some(0)),
            true
        )
        .is_news
    );
}

#[test]
fn connections_that_vanish_together_stay() {
    let keys: Vec<String> = (0..5).map(|i| format!("k{i}")).collect();
    let payloads: Vec<_> = keys.iter().map(|key| (key.as_str(), 3)).collect();
    let old = accepted(&payloads, Some(1));
    let gone = |number: usize| vec![Content::Removed(keys[..number].to_vec())];
    let one = verdict(&old, &gone(1), false);
    assert_eq!((one.input.payloads.len(), one.parked.len()), (4, 0));
    let most = verdict(&old, &gone(4), false);
    assert_eq!((most.input.payloads.len(), most.parked.len()), (5, 1));
}

/// Each part by itself shows less than all of them together.
#[test]
fn what_parked_parts_lead_to_is_said_too() {
    let mut old = accepted(&[("a", 10)], Some(10));
    let mut news = news(&mut old, &[("c", 0)], None);
    news.push(Content::Removed(vec!["a".to_owned()]));
    let verdict = verdict(&old, &news, false);
    let kinds: Vec<_> = verdict.parked.iter().map(|c| Part::of(c).kind()).collect();
    assert_eq!(kinds, ["connections"]);
    let subjects: Vec<_> = verdict.trips.iter().map(|(_, t)| &*t.subject).collect();
    assert_eq!(subjects, ["connections", "features"]);
    assert!(verdict.trips.iter().all(|(_, trip)| trip.is_emptiness()));
}

#[test]
fn a_lost_input_is_made_up_for_by_all_or_nothing() {
    let live = Live {
        features: (0..10).map(|i| format!("f{i}")).collect(),
        running: (0..10).map(|i| format!("e{i}")).collect(),
    };
    let mut nothing = SourceInput::default();
    for (payload, list, parked) in [(9, 10, 0), (0, 10, 2), (10, 0, 2), (5, 10, 2)] {
        let news = news(&mut nothing, &[("k", payload)], Some(list));
        let verdict = judged(&nothing, &news, false, Some(&live));
        assert_eq!(
            (verdict.parked.len(), verdict.is_news),
            (parked, parked == 0)
        );
    }
}

#[test]
fn connections_that_the_settings_take_away_are_not_asked_about() {
    let old = accepted(&[("old", 10)], Some(1));
    let verdict = |payloads: &[(&str, usize)]| {
        let mut changed = news(&mut old.clone(), payloads, None);
        changed.push(Content::Removed(vec!["old".to_owned()]));
        admit(&Offer {
            source: &"s".into(),
            rules: &Rules {
                lists_connections: true,
                ..rules()
            },
            old: &old,
            live: None,
            news: &changed,
            is_first: false,
            takes_part: &|_| true,
            side: &side,
        })
    };
    let replaced = verdict(&[("new", 10)]);
    assert_eq!(replaced.parked, []);
    assert_eq!(replaced.input, accepted(&[("new", 10)], Some(1)));
    // Its features still are: what comes instead may be half of it, or not there yet.
    assert_eq!(verdict(&[("new", 5)]).parked.len(), 1);
    assert_eq!(verdict(&[("new", 0)]).parked.len(), 1);
    let waiting = verdict(&[]);
    assert_eq!((waiting.parked.len(), waiting.input), (1, old));
}

#[test]
fn a_digest_is_that_of_the_meaning() {
    let of = |text: &str| {
        let nothing = SourceInput::default();
        let news = nothing.read_payload("s", "k", &text.to_owned().into());
        digest(&[news.unwrap().unwrap()])
    };
    let one = of(r#"{"features":{"a":{},"b":{}},"dateUpdated":"2026-01-01"}"#);
    assert_eq!(
        one,
        of(r#"{"dateUpdated":"2026-02-02","features":{"b":{},"a":{}}}"#)
    );
    assert_ne!(one, of(r#"{"features":{"a":{}}}"#));
    assert_eq!(one.len(), 32);
}

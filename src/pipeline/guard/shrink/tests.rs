use serde_json::{Value, json};

use super::{
    super::test_support::{listed, payload as read, rules, stitched},
    *,
};

fn features(number: usize) -> Value {
    (0..number)
        .map(|i| (format!("f{i}"), json!({"defaultValue": i})))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn running_ones(number: usize) -> Vec<Value> {
    (0..number).map(|i| listed(&format!("e{i}"))).collect()
}

#[track_caller]
fn check(before: (usize, usize), after: (usize, usize), expected: &[(&str, i64, i64)]) {
    let side = |(f, e)| stitched(&json!({"features": features(f)}), &running_ones(e));
    let trips = environment(&rules(), &"s".into(), &side(before), &side(after));
    let found: Vec<_> = trips
        .iter()
        .map(|trip| {
            let number = |value: &Value| value.as_i64().unwrap();
            (
                trip.subject.as_str(),
                number(&trip.before),
                number(&trip.after),
            )
        })
        .collect();
    assert_eq!(found, expected, "{trips:?}");
}

#[test]
fn features_and_running_experiments_are_counted_separately() {
    check((10, 10), (7, 7), &[]);
    check((10, 10), (6, 10), &[("features", 10, 6)]);
    check((10, 10), (10, 6), &[("experiments", 10, 6)]);
    check(
        (10, 10),
        (6, 6),
        &[("features", 10, 6), ("experiments", 10, 6)],
    );
}

#[test]
fn few_removals_never_trip_unless_nothing_is_left() {
    check((3, 3), (1, 1), &[]);
    check((2, 2), (0, 2), &[("features", 2, 0)]);
    check((2, 1), (2, 0), &[("experiments", 1, 0)]);
    check((0, 0), (0, 0), &[]);
}

/// Features of which the last so many say nothing.
fn blanked(number: usize, blank: usize) -> Value {
    let feature = |i: usize| {
        let is_blank = i >= number - blank;
        let one = json!({"defaultValue": i, "rules": [{"force": 1}]});
        let other = [
            json!({}),
            json!({"defaultValue": null, "rules": []}),
            json!({"valueType": "string"}),
        ];
        let definition = if is_blank { other[i % 3].clone() } else { one };
        (format!("f{i}"), definition)
    };
    let features: serde_json::Map<_, _> = (0..number).map(feature).collect();
    json!({ "features": features })
}

#[test]
fn a_feature_that_says_nothing_any_more_is_gone() {
    let trips = |before: &Value, after: &Value| {
        let [old, new] = [before, after].map(read);
        let of_payload = payload(&rules(), "payload k", &old, &new);
        let [old, new] = [before, after].map(|document| stitched(document, &[]));
        let of_environment = environment(&rules(), &"s".into(), &old, &new);
        let of = |trips: Vec<Trip>| -> Vec<String> {
            trips.into_iter().map(|trip| trip.message).collect()
        };
        assert_eq!(of(of_payload.clone()), of(of_environment));
        of(of_payload)
    };
    let good = blanked(100, 0);
    assert_eq!(trips(&good, &blanked(100, 30)), [""; 0]);
    assert_eq!(
        trips(&good, &blanked(100, 40)),
        ["40 of 100 features (40 %) are blank; at most 30 % may go at once"]
    );
    assert_eq!(
        trips(&good, &blanked(80, 20)),
        ["40 of 100 features (40 %) are gone or blank; at most 30 % may go at once"]
    );
    assert_eq!(
        trips(&good, &blanked(100, 100)),
        ["nothing is left of 100 features: 100 are blank"]
    );
    // What said nothing before may go on with that, and a few may begin with it.
    assert_eq!(trips(&blanked(100, 100), &blanked(99, 99)), [""; 0]);
    assert_eq!(trips(&blanked(4, 2), &blanked(4, 3)), [""; 0]);
    // A default that is empty is a default.
    let empty = json!({"features": {"f0": {"defaultValue": ""}}});
    assert_eq!(trips(&blanked(1, 0), &empty), [""; 0]);
}

#[test]
fn an_experiment_that_is_stopped_no_longer_runs() {
    let mut list = running_ones(5);
    let before = stitched(&json!({"features": {}}), &list);
    for experiment in &mut list[..3] {
        experiment["status"] = json!("stopped");
    }
    let after = stitched(&json!({"features": {}}), &list);
    let trips = environment(&rules(), &"s".into(), &before, &after);
    assert_eq!(
        trips[0].message,
        "3 of 5 running experiments (60 %) are gone; at most 30 % may go at once"
    );
}

#[test]
fn experiments_that_vanish_from_rules_are_counted_though_their_features_stay() {
    let with = |number: usize| {
        let feature = |i: usize| {
            let rule = json!({"key": format!("e{i}"), "variations": [0, 1]});
            let rules = if i < number { json!([rule]) } else { json!([]) };
            (format!("f{i}"), json!({"defaultValue": 0, "rules": rules}))
        };
        let features: serde_json::Map<_, _> = (0..6).map(feature).collect();
        read(&json!({"features": features}))
    };
    let trips = |after| payload(&rules(), "payload k", &with(6), &with(after));
    assert_eq!(trips(5), []);
    assert_eq!(
        trips(0)[0].message,
        "6 of 6 experiments in rules (100 %) are gone; at most 30 % may go at once"
    );
}

#[test]
fn the_last_experiments_of_a_payload_do_not_go_by_themselves() {
    let side = |in_rules: usize, auto: usize, listed_ones: usize| {
        let feature = |i: usize| {
            let rule = json!({"key": format!("r{i}"), "variations": [0, 1]});
            let rules = if i < in_rules {
                json!([rule])
            } else {
                json!([])
            };
            (format!("f{i}"), json!({"defaultValue": 0, "rules": rules}))
        };
        let features: serde_json::Map<_, _> = (0..3).map(feature).collect();
        let auto: Vec<Value> = (0..auto)
            .map(|i| json!({"key": format!("a{i}"), "variations": [{}, {}]}))
            .collect();
        let document = json!({"features": features, "experiments": auto});
        stitched(&document, &running_ones(listed_ones))
    };
    let trips = |before: (usize, usize, usize), after: (usize, usize, usize)| -> Vec<String> {
        let [old, new] = [before, after].map(|(rules, auto, list)| side(rules, auto, list));
        let trips = environment(&rules(), &"s".into(), &old, &new).into_iter();
        trips.map(|trip| trip.message).collect()
    };
    let nothing = |number| {
        [format!(
            "nothing is left of {number} experiments of the payload"
        )]
    };
    assert_eq!(trips((1, 0, 0), (0, 0, 0)), nothing(1));
    assert_eq!(trips((0, 2, 0), (0, 0, 0)), nothing(2));
    assert_eq!(trips((1, 1, 0), (0, 0, 0)), nothing(2));
    assert_eq!(trips((2, 0, 0), (1, 0, 0)), [""; 0]);
    assert_eq!(trips((1, 1, 0), (0, 1, 0)), [""; 0]);
    // Others run: a single one may end.
    assert_eq!(trips((1, 0, 5), (0, 0, 5)), [""; 0]);
    assert_eq!(trips((0, 0, 0), (0, 0, 0)), [""; 0]);
}

#[test]
fn a_source_does_not_end_the_experiments_of_another_by_defining_the_same() {
    let side = |number: usize, taken: usize, status: Status| {
        let mut side = stitched(&json!({"features": {}}), &running_ones(number));
        for other in side.experiments.iter_mut().skip(taken) {
            other.source = "other".into();
        }
        for mine in side.experiments.iter_mut().take(taken) {
            Arc::make_mut(&mut mine.item).status = status;
        }
        side
    };
    let trips = |before: &Stitched, after: &Stitched| -> Vec<String> {
        let trips = environment(&rules(), &"s".into(), before, after).into_iter();
        trips.map(|trip| trip.message).collect()
    };
    let running = Status::Running;
    let taken = trips(&side(2, 0, running), &side(2, 2, Status::Draft));
    assert_eq!(
        taken,
        ["nothing is left of 2 running experiments of other sources"]
    );
    assert_eq!(
        trips(&side(2, 0, running), &side(2, 1, Status::Draft)),
        [""; 0]
    );
    assert_eq!(trips(&side(2, 0, running), &side(2, 2, running)), [""; 0]);
    assert_eq!(
        trips(&side(9, 0, running), &side(9, 4, Status::Draft)).len(),
        1
    );
}

#[test]
fn a_view_may_lose_few_of_its_members() {
    let view = |number: usize| Shown {
        name: "varnish".into(),
        members: (0..number).map(|i| format!("e{i}")).collect(),
        bytes: 0,
    };
    assert_eq!(super::view(&rules(), &view(9), &view(7)), None);
    let trip = super::view(&rules(), &view(9), &view(5)).unwrap();
    assert_eq!(trip.subject, "view varnish");
    // Whether a view may be empty is another guard's to say.
    assert_eq!(super::view(&rules(), &view(2), &view(0)), None);
}

#[test]
fn connections_do_not_go_all_at_once() {
    assert_eq!(connections(&rules(), 10, 2), None);
    assert!(connections(&rules(), 10, 4).is_some());
    assert!(connections(&rules(), 1, 1).is_some());
}

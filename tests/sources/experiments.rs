//! The paged list of experiments.

use stitchd::sources::{FetchError, Fetched};

use crate::{
    helpers::{body, error, experiments, fetch, payload, with_rest},
    upstream::{PAYLOAD, Reply, Seen, Upstream, json, page, page_of, payload_or, reply},
};

#[tokio::test]
async fn all_pages_of_experiments_arrive() {
    let upstream = Upstream::start(|seen, _| payload_or(seen, || page(seen.offset(), 250))).await;
    let mut source = with_rest(&upstream);
    source.project = "a b&c".to_owned();
    let fetched = fetch(&source).await;
    let text = body(experiments(&fetched));
    let document: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(document["total"], 250);
    assert_eq!(document["experiments"].as_array().unwrap().len(), 250);
    assert!(text.starts_with(r#"{"experiments":[{"id":"exp_0","w":1.0},"#));
    let lists: Vec<Seen> = upstream
        .seen
        .lock()
        .iter()
        .filter(|seen| seen.path.contains("/experiments"))
        .cloned()
        .collect();
    assert_eq!(
        lists[2].path,
        "/api/v1/experiments?limit=100&offset=200&projectId=a+b%26c"
    );
    assert_eq!(lists.len(), 3);
    assert_eq!(lists[0].header("authorization"), Some("Bearer secret_abc"));
    assert!(lists[0].header("if-none-match").is_none());
}

#[tokio::test]
async fn a_list_that_shifts_is_read_again_and_given_up_in_the_end() {
    // While the first read is at its second page, an early experiment is deleted.
    let upstream = Upstream::start(|seen, number| {
        payload_or(seen, || match number {
            0 | 1 if seen.offset() == 0 => page(0, 150),
            n if n <= 2 && seen.offset() == 100 => page_of(101..149, 149),
            _ => page(seen.offset(), 149),
        })
    })
    .await;
    let fetched = fetch(&with_rest(&upstream)).await;
    let document: serde_json::Value = serde_json::from_str(body(experiments(&fetched))).unwrap();
    assert_eq!(document["total"], 149);

    let upstream =
        Upstream::start(|seen, number| payload_or(seen, || page(seen.offset(), 150 + number)))
            .await;
    let fetched = fetch(&with_rest(&upstream)).await;
    assert!(matches!(
        error(experiments(&fetched)),
        FetchError::Shifting { reads: 3 }
    ));
    assert_eq!(body(payload(&fetched)), PAYLOAD);
}

#[tokio::test]
async fn a_list_that_repeats_items_counts_each_once() {
    let upstream = Upstream::start(|seen, _| {
        payload_or(seen, || match seen.offset() {
            0 => page(0, 150),
            _ => page_of(99..150, 150),
        })
    })
    .await;
    let fetched = fetch(&with_rest(&upstream)).await;
    let document: serde_json::Value = serde_json::from_str(body(experiments(&fetched))).unwrap();
    assert_eq!(document["experiments"].as_array().unwrap().len(), 150);
}

#[tokio::test]
async fn lists_without_end_or_over_the_limit_are_left() {
    let upstream = Upstream::start(|seen, _| {
        payload_or(seen, || {
            json(r#"{"experiments":[],"total":5,"hasMore":true}"#)
        })
    })
    .await;
    let fetched = fetch(&with_rest(&upstream)).await;
    assert_eq!(error(experiments(&fetched)).code(), "shifting_list");

    let upstream =
        Upstream::start(|seen, _| payload_or(seen, || page(seen.offset(), 1_000_000))).await;
    let mut source = with_rest(&upstream);
    source.poll.max_body_bytes = 10_000;
    let fetched = fetch(&source).await;
    assert!(matches!(
        error(experiments(&fetched)),
        FetchError::TooLarge {
            limit_bytes: 10_000
        }
    ));
}

#[tokio::test]
async fn a_missing_page_fails_the_list_alone() {
    let upstream = Upstream::start(|seen, _| {
        payload_or(seen, || match seen.offset() {
            0 => page(0, 150),
            _ => reply(500, "", ""),
        })
    })
    .await;
    let fetched = fetch(&with_rest(&upstream)).await;
    assert_eq!(error(experiments(&fetched)).code(), "http_status");
    assert_eq!(body(payload(&fetched)), PAYLOAD);
}

/// One running experiment that names a saved group and a namespace.
const REFERRING: &str = r#"{"id":"exp_1","status":"running","phases":[{"savedGroupTargeting":[{"matchType":"all","savedGroups":["grp_1"]}],"namespace":{"namespaceId":"ns_1","enabled":true,"ranges":[[0,0.5]]}}]}"#;

fn list(member: &str, item: &str) -> Reply {
    json(format!(
        r#"{{"{member}":[{item}],"limit":100,"total":1,"hasMore":false}}"#
    ))
}

async fn referring(groups: impl Fn() -> Reply + Send + Sync + 'static) -> (Upstream, Fetched) {
    let upstream = Upstream::start(move |seen, _| {
        payload_or(seen, || {
            if seen.path.contains("/saved-groups?") {
                groups()
            } else if seen.path.contains("/namespaces?") {
                list("namespaces", r#"{"id":"ns_1","seed":"x"}"#)
            } else {
                list("experiments", REFERRING)
            }
        })
    })
    .await;
    let fetched = fetch(&with_rest(&upstream)).await;
    (upstream, fetched)
}

#[tokio::test]
async fn saved_groups_and_namespaces_are_read_where_experiments_refer_to_them() {
    let (upstream, fetched) = referring(|| list("savedGroups", r#"{"id":"grp_1"}"#)).await;
    let expected = format!(
        r#"{{"experiments":[{REFERRING}],"total":1,"savedGroups":[{{"id":"grp_1"}}],"namespaces":[{{"id":"ns_1","seed":"x"}}]}}"#
    );
    assert_eq!(body(experiments(&fetched)), expected);
    let lists = upstream.paths();
    assert!(lists.contains(&"/api/v1/saved-groups?limit=100&offset=0".to_owned()));
}

#[tokio::test]
async fn experiments_come_without_a_list_that_is_withheld_but_not_without_one_that_fails() {
    let (_, fetched) = referring(|| reply(403, "", r#"{"message":"no"}"#)).await;
    let text = body(experiments(&fetched));
    assert!(
        !text.contains("grp_1\"}") && text.contains("\"namespaces\":[{"),
        "{text}"
    );

    let (_, fetched) = referring(|| reply(500, "", "")).await;
    assert_eq!(error(experiments(&fetched)).code(), "http_status");
}

//! The management API: pages, filters, credentials, rate limit.

use super::*;

#[tokio::test]
async fn experiments_come_in_pages() {
    let upstream = upstream();
    upstream.set_experiments(many_experiments(250));
    let mut offset = 0;
    let mut keys = Vec::new();
    loop {
        let path = format!("experiments?limit=100&offset={offset}");
        let page: Value = rest(&upstream, &path).await.value().await;
        assert_eq!(page["total"], 250);
        assert_eq!(page["limit"], 100);
        assert_eq!(page["offset"], offset);
        let items = page["experiments"].as_array().unwrap();
        assert_eq!(page["count"], items.len());
        keys.extend(items.iter().map(|item| item["trackingKey"].clone()));
        if page["hasMore"] == false {
            assert!(page["nextOffset"].is_null());
            break;
        }
        offset = page["nextOffset"].as_u64().unwrap();
    }
    assert_eq!(keys.len(), 250);
    assert_eq!(keys[249], "experiment-00249");
    let page: Value = rest(&upstream, "experiments").await.value().await;
    assert_eq!(page["count"], 10);
    for query in ["limit=0", "limit=101", "limit=x", "offset=-1"] {
        let response = rest(&upstream, &format!("experiments?{query}")).await;
        assert_eq!(response.status(), 400, "{query}");
        let body: Value = response.value().await;
        assert!(
            body["message"]
                .as_str()
                .unwrap()
                .starts_with("Querystring: [")
        );
    }
}

#[tokio::test]
async fn lists_are_filtered() {
    let upstream = upstream();
    upstream.set_experiments(vec![
        experiment("one-running").with_member("project", json!("prj_a")),
        experiment("one-stopped").with_status("stopped"),
        experiment("one-archived").with_archived(true),
    ]);
    for (query, total) in [
        ("", 3),
        ("projectId=prj_a", 1),
        ("status=stopped", 1),
        ("archived=false", 2),
        ("trackingKey=one-archived", 1),
        ("trackingKey=none", 0),
    ] {
        let path = format!("experiments?{query}");
        let page: Value = rest(&upstream, &path).await.value().await;
        assert_eq!(page["total"], total, "{query}");
    }
}

#[tokio::test]
async fn connections_are_listed_with_their_keys() {
    let upstream = upstream();
    upstream.add_connection(Connection {
        environment: "staging".to_owned(),
        project: "prj_a".to_owned(),
        encryption_key: Some(KEY.to_owned()),
        streaming: true,
        ..Connection::new("sdk-second")
    });
    let page: Value = rest(&upstream, "sdk-connections").await.value().await;
    assert_eq!(page["total"], 2);
    let second = &page["connections"][1];
    assert_eq!(second["key"], "sdk-second");
    assert_eq!(second["environment"], "staging");
    assert_eq!(second["encryptionKey"], KEY);
    assert_eq!(second["sseEnabled"], true);
    let path = "sdk-connections?projectId=prj_a";
    let page: Value = rest(&upstream, path).await.value().await;
    assert_eq!(page["total"], 1);
}

#[tokio::test]
async fn credentials_are_asked_for() {
    let upstream = upstream();
    let url = format!("{}/api/v1/experiments", upstream.base_url());
    let status = async |request: reqwest::RequestBuilder| {
        let response = request.send().await.unwrap();
        response.status().as_u16()
    };
    assert_eq!(status(client().get(&url)).await, 400);
    assert_eq!(
        status(client().get(&url).bearer_auth("secret_no")).await,
        401
    );
    assert_eq!(
        status(client().get(&url).bearer_auth(CLIENT_KEY)).await,
        401
    );
    let basic = client().get(&url).basic_auth(SECRET_KEY, Some(""));
    assert_eq!(status(basic).await, 200);
    upstream.set_secret("secret_next");
    assert_eq!(rest(&upstream, "experiments").await.status(), 401);
}

#[tokio::test]
async fn the_rate_limit_counts_in_windows() {
    let upstream = upstream();
    upstream.set_rate_limit(2, Duration::from_millis(1500));
    let first = rest(&upstream, "experiments").await;
    assert_eq!(header(&first, "ratelimit-limit"), "2");
    assert_eq!(header(&first, "ratelimit-remaining"), "1");
    assert_eq!(header(&first, "ratelimit-reset"), "2");
    assert_eq!(rest(&upstream, "sdk-connections").await.status(), 200);
    let refused = rest(&upstream, "experiments").await;
    assert_eq!(refused.status(), 429);
    assert_eq!(header(&refused, "retry-after"), "2");
    assert_eq!(header(&refused, "ratelimit-remaining"), "0");
    assert_eq!(payload(&upstream).await.status(), 200);
    tokio::time::sleep(Duration::from_millis(1600)).await;
    assert_eq!(rest(&upstream, "experiments").await.status(), 200);
}

#[tokio::test]
async fn a_list_may_shift_between_its_pages() {
    let upstream = upstream();
    let all = async |upstream: &Upstream| {
        let mut ids = Vec::new();
        for offset in [0, 100] {
            let path = format!("experiments?limit=100&offset={offset}");
            let page: Value = rest(upstream, &path).await.value().await;
            let items = page["experiments"].as_array().unwrap().clone();
            ids.extend(items.iter().map(|item| item["id"].to_string()));
            ids.push(page["total"].to_string());
        }
        ids
    };
    upstream.set_experiments(many_experiments(150));
    let shift = Fault::ShiftingList(Shift::Delete);
    upstream.set_fault_times(Route::Experiments, shift, 1);
    let ids = all(&upstream).await;
    assert!(ids.contains(&"150".to_owned()) && ids.contains(&"149".to_owned()));
    assert!(!ids.contains(&"\"exp_experiment-00100\"".to_owned()));
    upstream.set_experiments(many_experiments(150));
    let shift = Fault::ShiftingList(Shift::Insert);
    upstream.set_fault_times(Route::Experiments, shift, 1);
    let ids = all(&upstream).await;
    assert!(ids.contains(&"151".to_owned()));
    let twice = ids.iter().filter(|id| *id == "\"exp_experiment-00099\"");
    assert_eq!(twice.count(), 2);
}

#[tokio::test]
async fn an_upserted_experiment_replaces_its_like() {
    let upstream = upstream();
    upstream.upsert_experiment(experiment("sticky-header"));
    upstream.upsert_experiment(experiment("sticky-header").with_coverage(0.5));
    let page: Value = rest(&upstream, "experiments").await.value().await;
    assert_eq!(page["total"], 1);
    assert_eq!(page["experiments"][0]["phases"][0]["coverage"], 0.5);
    upstream.update_experiment("sticky-header", |item| item["name"] = json!("New"));
    assert_eq!(upstream.experiment("sticky-header").unwrap()["name"], "New");
    upstream.remove_experiment("sticky-header");
    assert!(upstream.experiments().is_empty());
}

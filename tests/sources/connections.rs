//! Connections that are discovered.

use stitchd::{
    settings::{Connections, Source},
    sources::{Driver, PartId, Validators},
};

use crate::{
    helpers::{body, fetch, payload, with_rest},
    upstream::{PAYLOAD, Upstream, json, page, payload_or, reply},
};

const CONNECTIONS: &str = r#"{"connections":[
    {"id":"1","key":"sdk-other","environment":"dev","projects":[]},
    {"id":"2","key":"sdk-test1234567","environment":"production","projects":[],"encryptionKey":"Zvwv/+uhpFDznZ6SX28Yjg=="},
    {"id":"3","key":"sdk-remote","environment":"production","projects":[],"remoteEvalEnabled":true}
],"total":3,"hasMore":false}"#;

fn discovering(upstream: &Upstream) -> Source {
    Source {
        client_key: String::new(),
        connections: Connections::Mode("discover".to_owned()),
        ..with_rest(upstream)
    }
}

#[tokio::test]
async fn connections_are_discovered_and_remembered() {
    let upstream = Upstream::start(|seen, number| {
        payload_or(seen, || match seen.path.as_str() {
            path if path.contains("/sdk-connections") && number == 0 => json(CONNECTIONS),
            path if path.contains("/sdk-connections") => reply(500, "", ""),
            "/api/v1/sdk-payload/sdk-remote" => json(r#"{"features":{}}"#),
            _ => page(0, 1),
        })
    })
    .await;
    let driver = Driver::new(&discovering(&upstream)).unwrap();
    let first = driver.fetch(&Validators::new()).await;
    assert!(first.connections_error.is_none());
    assert_eq!(body(payload(&first)), PAYLOAD);
    let remote = PartId::Payload("sdk-remote".to_owned());
    assert_eq!(body(&first.parts[&remote]), r#"{"features":{}}"#);
    assert_eq!(first.parts.len(), 3);

    let second = driver.fetch(&Validators::new()).await;
    let failed = second.connections_error.as_ref().unwrap();
    assert_eq!(failed.code(), "http_status");
    assert_eq!(second.parts.len(), 3);
    assert!(upstream.paths().iter().all(|path| !path.contains("other")));
}

#[tokio::test]
async fn no_connection_for_the_environment_names_those_there_are() {
    let upstream = Upstream::start(|seen, _| {
        if seen.path.contains("/sdk-connections") {
            json(CONNECTIONS)
        } else {
            page(0, 1)
        }
    })
    .await;
    let mut source = discovering(&upstream);
    source.environment = "staging".to_owned();
    let fetched = fetch(&source).await;
    let error = fetched.connections_error.as_ref().unwrap();
    assert_eq!(
        error.to_string(),
        "no SDK connection for environment `staging`: upstream has `dev`, `production`"
    );
    assert_eq!(fetched.parts.len(), 1, "the experiments all the same");
}

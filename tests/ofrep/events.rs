//! The event stream, its address, and refetches that an event has caused.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use stitchd::cli::demo::upstream::CLIENT_KEY;
use tokio::time::{Duration, timeout};

use crate::{
    schema::check_event,
    stand::{Ask, all, bed, start},
    support::{TestApp, blocks::Blocks},
};

const PATH: &str = "/ofrep/v1/events";

/// One event.
#[derive(Debug, PartialEq)]
struct Event {
    id: u64,
    data: Value,
}

/// An open stream, read event by event.
struct Stream(Blocks);

impl Stream {
    /// Opens the stream at an address.
    async fn open(app: &TestApp, address: &str, last_id: Option<&str>) -> Self {
        let request = app.http.get(format!("{}{address}", app.data));
        let mut blocks = Blocks::open(request, last_id).await;
        assert_eq!(blocks.next().await.as_deref(), Some("retry: 3000"));
        Self(blocks)
    }

    /// The next event, or the end; keep-alives are passed over.
    async fn event(&mut self) -> Option<Event> {
        loop {
            let block = self.0.next().await?;
            if block.starts_with(':') {
                continue;
            }
            let lines: Vec<&str> = block.lines().collect();
            let [name, id, data] = lines[..] else {
                panic!("{block:?}");
            };
            assert_eq!(name, "event: message");
            let event = Event {
                id: id.strip_prefix("id: ").unwrap().parse().unwrap(),
                data: serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap(),
            };
            check_event(&event.data);
            return Some(event);
        }
    }
}

/// The address that a client with this secret is given.
async fn address(app: &TestApp, secret: &str) -> String {
    let address = all().by(secret).of(app).await.stream_address();
    assert!(address.starts_with(PATH), "{address}");
    address
}

/// How the stream at an address is refused; 200: it is not.
async fn refusal(app: &TestApp, address: &str) -> u16 {
    let url = format!("{}{address}", app.data);
    app.http.get(url).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn the_address_opens_the_stream_without_headers_and_nothing_else() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    for secret in [&secret, CLIENT_KEY] {
        let address = address(&app, secret).await;
        assert!(!address.contains(secret));
        let mut stream = Stream::open(&app, &address, None).await;
        assert_eq!(stream.event().await.unwrap().id, app.revision());
        let (_, credential) = address.split_once('=').unwrap();
        assert_eq!(all().by(credential).of(&app).await.status, 401);
        let asked = all().query(&[("credential", credential)]).of(&app).await;
        assert_eq!(asked.status, 401);
    }
    // A client that can send headers needs no such address.
    let url = format!("{}{PATH}?events=1", app.data);
    let request = app.http.get(&url).header("x-api-key", &secret);
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(refusal(&app, PATH).await, 401);
    app.stop().await;
}

#[tokio::test]
async fn an_event_comes_on_connecting_and_with_each_revision() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let address = address(&app, &secret).await;
    let mut stream = Stream::open(&app, &address, None).await;
    let first = stream.event().await.unwrap();
    assert_eq!(first.id, app.revision());
    let mut tags = vec![first.data["etag"].clone()];
    for value in 1..4 {
        let revision = bed.publish_news(&app, value).await;
        let event = stream.event().await.unwrap();
        assert_eq!(event.id, revision);
        tags.push(event.data["etag"].clone());
    }
    tags.dedup();
    assert_eq!(tags.len(), 4, "each revision has a tag");
    app.stop().await;
}

#[tokio::test]
async fn a_client_that_comes_back_is_told_what_it_missed_and_nothing_twice() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let address = address(&app, &secret).await;
    let known = app.revision().to_string();
    let mut current = Stream::open(&app, &address, Some(&known)).await;
    let revision = bed.publish_news(&app, 1).await;
    // The first that it is told is the new one.
    assert_eq!(current.event().await.unwrap().id, revision);
    for last in [&known, "0", "odd", ""] {
        let mut behind = Stream::open(&app, &address, Some(last)).await;
        assert_eq!(behind.event().await.unwrap().id, revision, "{last:?}");
    }
    app.stop().await;
}

/// An address with a right code for a window of time so many windows from now.
fn address_of(secret: &str, owner: &str, windows_on: i64) -> String {
    const WINDOW_SECONDS: i64 = 12 * 3600;
    let now = stitchd::clock::now().unix_timestamp();
    let window = now.div_euclid(WINDOW_SECONDS) + windows_on;
    let key = Sha256::digest(secret.as_bytes());
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{PATH} {owner} {window}").as_bytes());
    let code = URL_SAFE_NO_PAD.encode(&mac.finalize().into_bytes()[..16]);
    format!("{PATH}?credential={owner}.{window}.{code}")
}

#[tokio::test]
async fn a_forged_or_expired_address_is_401() {
    let bed = bed();
    let (app, _) = start(&bed).await;
    let (id, secret) = app.token(&json!({"kind": "client"})).await;
    let (other, _) = app.token(&json!({"kind": "client"})).await;
    let owner = format!("t.{id}");
    let own = address(&app, &secret).await;
    assert_eq!(own, address_of(&secret, &owner, 0));
    let one_event = async |address: &str| refusal(&app, &format!("{address}&events=1")).await;
    assert_eq!(one_event(&own).await, 200);
    let window_before = address_of(&secret, &owner, -1);
    assert_eq!(one_event(&window_before).await, 200);
    for window in [-2, 1, 1000] {
        let address = address_of(&secret, &owner, window);
        assert_eq!(refusal(&app, &address).await, 401, "{window}");
    }
    for forged in [
        own.replace(&id, &other),
        address_of("not its secret", &owner, 0),
        own.replace("=t.", "=k."),
        own.rsplit_once('.').unwrap().0.to_owned(),
        format!("{own}.x"),
        format!("{own}AA"),
        format!("{PATH}?credential="),
        format!("{PATH}?credential=..."),
    ] {
        assert_eq!(refusal(&app, &forged).await, 401, "{forged}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_revocation_ends_open_streams_and_the_address() {
    let bed = bed();
    let (app, other) = start(&bed).await;
    let (id, secret) = app.token(&json!({"kind": "frontend"})).await;
    let address_of_revoked = address(&app, &secret).await;
    let mut stream = Stream::open(&app, &address_of_revoked, None).await;
    let mut stays = Stream::open(&app, &address(&app, &other).await, None).await;
    assert!(stream.event().await.is_some() && stays.event().await.is_some());
    let revoked = app.admin_delete(&format!("/admin/tokens/{id}")).await;
    assert_eq!(revoked.status, 200);
    let end = timeout(Duration::from_secs(1), stream.event()).await;
    assert_eq!(end.expect("within a second"), None);
    assert_eq!(refusal(&app, &address_of_revoked).await, 401);
    let revision = bed.publish_news(&app, 1).await;
    assert_eq!(stays.event().await.unwrap().id, revision);
    app.stop().await;
}

#[tokio::test]
async fn an_address_and_its_streams_last_as_long_as_the_secret_they_came_with() {
    let bed = bed();
    let (app, _) = start(&bed).await;
    let (id, old) = app.token(&json!({"kind": "client"})).await;
    let before = address(&app, &old).await;
    let mut stream = Stream::open(&app, &before, None).await;
    assert!(stream.event().await.is_some());
    let path = format!("/admin/tokens/{id}/rotate");
    let rotated = app.admin_post(&path, "").await.json();
    let new = rotated["secret"].as_str().unwrap().to_owned();
    // The old secret still counts, and so does all that came with it.
    assert_eq!(address(&app, &old).await, before);
    assert_eq!(refusal(&app, &format!("{before}&events=1")).await, 200);
    let after = address(&app, &new).await;
    assert_ne!(before, after);
    assert_eq!(refusal(&app, &format!("{after}&events=1")).await, 200);
    // The first secret is now two rotations old.
    let again = app.admin_post(&path, r#"{"grace":"0s"}"#).await;
    assert_eq!(again.status, 200);
    for address in [before, after] {
        assert_eq!(refusal(&app, &address).await, 401);
    }
    let end = timeout(Duration::from_secs(5), stream.event()).await;
    assert_eq!(end.expect("at once"), None);
    app.stop().await;
}

#[tokio::test]
async fn a_refetch_is_304_only_where_the_event_named_what_is_served_here() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let address = address(&app, &secret).await;
    let mut stream = Stream::open(&app, &address, None).await;
    let text = |event: &Event, name: &str| match &event.data[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let old = text(&stream.event().await.unwrap(), "etag");
    bed.publish_news(&app, 1).await;
    let event = stream.event().await.unwrap();
    let (tag, published) = (text(&event, "etag"), text(&event, "lastModified"));
    let later = (published.parse::<i64>().unwrap() + 1).to_string();
    let earlier = (published.parse::<i64>().unwrap() - 1).to_string();
    let own = all().by(&secret).of(&app).await.tag().to_owned();
    let status = async |query: &[(&str, &str)], known: &str| {
        let ask: Ask = all().by(&secret).having(known).query(query);
        let seen = ask.of(&app).await;
        assert_eq!(seen.tag(), own);
        seen.status
    };
    for (query, expected) in [
        (vec![("flagConfigEtag", tag.as_str())], 304),
        (vec![("flagConfigEtag", &own)], 304),
        (vec![("flagConfigEtag", "")], 304),
        (vec![("flagConfigEtag", &old)], 200),
        (vec![("flagConfigEtag", "\"of a newer replica\"")], 200),
        (vec![("flagConfigLastModified", &published)], 304),
        (vec![("flagConfigLastModified", &earlier)], 304),
        (vec![("flagConfigLastModified", &later)], 200),
        (
            vec![("flagConfigLastModified", "2026-11-30T00:00:00Z")],
            200,
        ),
        (
            vec![
                ("flagConfigEtag", &tag),
                ("flagConfigLastModified", &published),
            ],
            304,
        ),
        (
            vec![("flagConfigEtag", &tag), ("flagConfigLastModified", &later)],
            200,
        ),
        (vec![("other", "x")], 304),
    ] {
        assert_eq!(status(&query, &own).await, expected, "{query:?}");
        assert_eq!(status(&query, "*").await, expected, "{query:?}");
        assert_eq!(status(&query, "\"other\"").await, 200, "{query:?}");
    }
    app.stop().await;
}

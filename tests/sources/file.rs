//! A payload file.

use std::time::Duration;

use stitchd::{
    settings::{Source, SourceKind},
    sources::{Driver, PartId, PartOutcome, Validators},
};
use tokio::time::timeout;

use crate::{
    helpers::{body, error, fetch},
    upstream::PAYLOAD,
};

#[tokio::test]
async fn a_payload_file_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("payload.json");
    let source = Source {
        kind: SourceKind::File,
        path: path.clone(),
        ..Source::default()
    };
    let driver = Driver::new(&source).unwrap();
    let part = PartId::Payload(String::new());
    let missing = driver.fetch(&Validators::new()).await;
    let text = error(&missing.parts[&part]).to_string();
    assert!(text.contains("payload.json"), "{text}");

    std::fs::write(&path, PAYLOAD).unwrap();
    let first = driver.fetch(&Validators::new()).await;
    assert_eq!(body(&first.parts[&part]), PAYLOAD);
    let PartOutcome::Fetched { validator, .. } = &first.parts[&part] else {
        unreachable!("its body was just read");
    };
    let known: Validators = [(part.clone(), validator.clone().unwrap())].into();
    let again = driver.fetch(&known).await;
    assert!(matches!(again.parts[&part], PartOutcome::NotModified));

    let changed = tokio::sync::Notify::new();
    tokio::select! {
        () = driver.follow(&first.streams, || changed.notify_one()) => panic!("it ended"),
        () = async {
            let early = timeout(Duration::from_millis(100), changed.notified()).await;
            assert!(early.is_err(), "the last fetch saw it");
            std::fs::write(&path, r#"{"features":{"b":{}}}"#).unwrap();
            timeout(Duration::from_secs(10), changed.notified()).await.unwrap();
        } => {}
    }
    let fetched = driver.fetch(&known).await;
    assert_eq!(body(&fetched.parts[&part]), r#"{"features":{"b":{}}}"#);

    std::fs::write(&path, "{}").unwrap();
    let fetched = driver.fetch(&known).await;
    assert_eq!(error(&fetched.parts[&part]).code(), "bad_shape");
    std::fs::write(&path, vec![b' '; 100]).unwrap();
    let mut small = source.clone();
    small.poll.max_body_bytes = 99;
    let fetched = fetch(&small).await;
    assert_eq!(error(&fetched.parts[&part]).code(), "too_large");
}

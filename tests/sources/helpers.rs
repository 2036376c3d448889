//! Sources that point to a scripted upstream, and what their fetches brought.

use std::time::Duration;

use secrecy::SecretString;
use stitchd::{
    settings::{Poll, Source},
    sources::{Driver, FetchError, Fetched, PartId, PartOutcome, Validators},
};

use crate::upstream::{KEY, Upstream};

pub(crate) fn source(upstream: &Upstream) -> Source {
    Source {
        id: "test".to_owned(),
        api_host: upstream.url.clone(),
        client_key: KEY.to_owned(),
        poll: Poll {
            timeout: Duration::from_millis(500),
            retries: 0,
            retry_backoff: Duration::from_millis(2),
            max_body_bytes: 1_000_000,
            ..Poll::default()
        },
        ..Source::default()
    }
}

pub(crate) fn with_rest(upstream: &Upstream) -> Source {
    Source {
        rest_host: upstream.url.clone(),
        secret_key: Some(SecretString::from("secret_abc")),
        ..source(upstream)
    }
}

pub(crate) async fn fetch(source: &Source) -> Fetched {
    Driver::new(source).unwrap().fetch(&Validators::new()).await
}

pub(crate) fn payload(fetched: &Fetched) -> &PartOutcome {
    &fetched.parts[&PartId::Payload(KEY.to_owned())]
}

pub(crate) fn experiments(fetched: &Fetched) -> &PartOutcome {
    &fetched.parts[&PartId::Experiments]
}

pub(crate) fn body(outcome: &PartOutcome) -> &str {
    match outcome {
        PartOutcome::Fetched { body, .. } => std::str::from_utf8(body).unwrap(),
        other => panic!("not fetched: {other:?}"),
    }
}

pub(crate) fn error(outcome: &PartOutcome) -> &FetchError {
    match outcome {
        PartOutcome::Failed(error) => error,
        other => panic!("not failed: {other:?}"),
    }
}

//! Documents for callers who may see a part of an environment: made once per revision and scope, on a blocking thread.

use std::sync::Arc;

use actix_web::rt::task::spawn_blocking;
use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime, macros::datetime};
use tokio::sync::OnceCell;

use super::{error::ApiError, times::rfc3339};
use crate::{
    eval::ScopedSnapshot,
    model::{
        Document, ScopedDocument, Snapshot, View, Visibility,
        snapshot::{SNAPSHOT_DOCUMENT, hex},
        token::verifier,
    },
    views::encodings::encodings,
};

/// Between these two lies what a scoped payload says it was updated at: SDKs look only at whether it is another moment.
const UPDATED_FROM: OffsetDateTime = datetime!(2020-01-01 0:00 UTC);
const UPDATED_SPAN_MS: u64 = 10 * 365 * 86_400_000;

/// Which document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As `/v1/snapshot` has it.
    Snapshot,
    /// As GrowthBook's SDKs read it.
    Features,
}

impl Form {
    fn of(self, view: &View) -> &OnceCell<ScopedDocument> {
        match self {
            Self::Snapshot => &view.snapshot,
            Self::Features => &view.features,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Snapshot => SNAPSHOT_DOCUMENT,
            Self::Features => "features",
        }
    }
}

/// The document of a scope, made now or before.
///
/// Fails with 500 where the snapshot cannot be read, which no published one is.
pub(super) async fn document(
    snapshot: &Arc<Snapshot>,
    visibility: &Visibility,
    form: Form,
) -> Result<Arc<Document>, ApiError> {
    let view = snapshot.view(visibility);
    let once = || async {
        let (snapshot, visibility) = (Arc::clone(snapshot), visibility.clone());
        let making = spawn_blocking(move || make(&snapshot, &visibility, form));
        making.await.ok().flatten().ok_or(ApiError::Internal)
    };
    let scoped = form.of(&view).get_or_try_init(once).await?;
    Ok(Arc::clone(&scoped.document))
}

fn make(snapshot: &Snapshot, visibility: &Visibility, form: Form) -> Option<ScopedDocument> {
    // What a connection delivered has a document of its own.
    let Visibility::Scope(scope) = visibility else {
        return None;
    };
    let projects = &scope.projects;
    let whole = &snapshot.document(SNAPSHOT_DOCUMENT)?.body;
    let sees_project = |project: &str| projects.sees([project].into_iter());
    let scoped = ScopedSnapshot::new(whole, |of| projects.sees_feature(of), sees_project).ok()?;
    let left_out = scoped.left_out.clone();
    let body = match form {
        Form::Snapshot => as_snapshot(snapshot, &scoped),
        Form::Features => as_payload(scoped),
    };
    let scope = hex(&verifier(&format!("{projects:?}"))[..8]);
    let name = format!("{}@{scope}", form.name());
    let document = Document::new(
        name,
        body.into_bytes().into(),
        snapshot.published_at,
        Vec::new(),
    );
    // Nobody else has the document yet.
    drop(document.encodings.set(encodings(&document.body)));
    Some(ScopedDocument {
        document: Arc::new(document),
        left_out,
    })
}

fn as_snapshot(snapshot: &Snapshot, scoped: &ScopedSnapshot) -> String {
    json!({
        "environment": &*snapshot.environment,
        "revision": snapshot.revision,
        "features": scoped.features,
        "experiments": scoped.experiments,
        "auto_experiments": scoped.auto_experiments,
        "saved_groups": scoped.saved_groups,
        "contextual_bandits": scoped.contextual_bandits,
        "overrides": scoped.overrides,
    })
    .to_string()
}

/// An SDK's payload. Its date is made of its content, so that the same content has the same bytes everywhere.
fn as_payload(mut scoped: ScopedSnapshot) -> String {
    let items = scoped
        .features
        .values_mut()
        .chain(&mut scoped.auto_experiments);
    for item in items.filter_map(Value::as_object_mut) {
        item.shift_remove("source");
    }
    let mut payload = Map::new();
    payload.insert("status".into(), 200.into());
    payload.insert("features".into(), scoped.features.into());
    payload.insert("experiments".into(), scoped.auto_experiments.into());
    payload.insert("savedGroups".into(), scoped.saved_groups.into());
    if !scoped.contextual_bandits.is_empty() {
        payload.insert("contextualBandits".into(), scoped.contextual_bandits.into());
    }
    let content = verifier(&Value::from(payload.clone()).to_string());
    let number = content[..8]
        .iter()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let ms = i64::try_from(number % UPDATED_SPAN_MS).unwrap_or_default();
    let updated = UPDATED_FROM + Duration::milliseconds(ms);
    payload.insert("dateUpdated".into(), rfc3339(updated).into());
    Value::from(payload).to_string()
}

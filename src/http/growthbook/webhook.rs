//! `POST /webhooks/growthbook/{source}`: GrowthBook says that something changed, and the source is polled at once.
//!
//! Signed as Standard Webhooks are, with id and time, but with the secret's text itself as the key, as GrowthBook does. A
//! webhook that comes twice is answered and polls once.

use std::collections::{BTreeMap, HashSet, VecDeque};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use parking_lot::Mutex;
use serde_json::json;

use super::{
    super::{error::ApiError, extract, health::answer, state::HttpState},
    GrowthbookError, PUSH_LIMIT,
    signature::is_webhook_signature,
};
use crate::{actors::poller::PollSoon, clock};

/// How far a webhook's time may be from ours, in seconds: what Standard Webhooks advise.
const TOLERANCE_SECONDS: i64 = 300;
/// Webhooks remembered per source; beyond it the oldest are refused by their time alone.
const REMEMBERED_MAX: usize = 1024;
/// Longest id taken, in bytes; GrowthBook's have 20.
const ID_BYTES_MAX: usize = 256;

/// `POST /webhooks/growthbook/{source}`.
pub(in crate::http) async fn webhook(
    request: HttpRequest,
    state: web::Data<HttpState>,
    payload: web::Payload,
) -> Result<HttpResponse, GrowthbookError> {
    let shared = &state.shared;
    let id = request.match_info().get("source").unwrap_or_default();
    let Some((id, source)) = shared.handles.sources.get_key_value(id) else {
        let known = shared.handles.sources.keys().cloned().collect();
        return Err(ApiError::UnknownSource { known }.into());
    };
    let Some(secret) = &source.webhook_secret else {
        return Err(GrowthbookError::MissingWebhookSecret);
    };
    let header = |name: &str| {
        let value = request.headers().get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let (message, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let _place = shared.large_bodies.place()?;
    let body = extract::body_up_to(shared, payload, source.max_body_bytes).await?;
    let signatures = header("webhook-signature");
    let is_signed = !message.is_empty()
        && message.len() <= ID_BYTES_MAX
        && is_webhook_signature(secret, (message, timestamp), &body, signatures);
    if !is_signed {
        shared.metrics.webhook(id, "bad_signature");
        return Err(GrowthbookError::BadSignature);
    }
    let seen = timestamp.parse().map_or(Seen::TooOld, |at| {
        shared.webhooks.note(id, message, at, now_seconds())
    });
    let outcome = match seen {
        Seen::TooOld => {
            shared.metrics.webhook(id, "too_old");
            return Err(GrowthbookError::OutsideTolerance);
        }
        Seen::Before => "duplicate",
        Seen::First => {
            let Some((_, poller)) = &source.actors else {
                return Err(ApiError::SourceDisabled(id.clone()).into());
            };
            match poller.ask_again(PollSoon, PUSH_LIMIT).await {
                Ok(true) => "polling",
                Ok(false) => "ignored_paused",
                Err(error) => {
                    // Nothing came of it: GrowthBook sends it again under the same id.
                    shared.webhooks.forget(id, message);
                    return Err(ApiError::from(error).into());
                }
            }
        }
    };
    shared.metrics.webhook(id, outcome);
    let body = json!({ "message": "Success", "outcome": outcome });
    Ok(answer(StatusCode::OK, &body))
}

fn now_seconds() -> i64 {
    clock::now_ms().div_euclid(1000)
}

/// Whether a webhook was there before.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    First,
    Before,
    TooOld,
}

/// Webhooks that were taken lately, shared by the workers; only signed ones come here.
#[derive(Default)]
pub(in crate::http) struct Webhooks(Mutex<BTreeMap<String, Remembered>>);

#[derive(Default)]
struct Remembered {
    /// By time of arrival, oldest first.
    order: VecDeque<(i64, String)>,
    ids: HashSet<String>,
    /// Times up to this one are refused: what was forgotten could otherwise come again.
    floor: Option<i64>,
}

impl Webhooks {
    /// Notes a webhook that was sent `at` these Unix seconds.
    fn note(&self, source: &str, id: &str, at: i64, now: i64) -> Seen {
        let mut sources = self.0.lock();
        let remembered = sources.entry(source.to_owned()).or_default();
        remembered.forget_expired(now);
        if remembered.ids.contains(id) {
            return Seen::Before;
        }
        let is_old = remembered.floor.is_some_and(|floor| at <= floor);
        if is_old || at.abs_diff(now) > TOLERANCE_SECONDS.unsigned_abs() {
            return Seen::TooOld;
        }
        if remembered.order.len() >= REMEMBERED_MAX
            && let Some((at, id)) = remembered.order.pop_front()
        {
            remembered.ids.remove(&id);
            remembered.floor = remembered.floor.max(Some(at));
        }
        remembered.ids.insert(id.to_owned());
        remembered.order.push_back((at, id.to_owned()));
        Seen::First
    }

    fn forget(&self, source: &str, id: &str) {
        if let Some(remembered) = self.0.lock().get_mut(source) {
            remembered.ids.remove(id);
            remembered.order.retain(|(_, known)| known != id);
        }
    }
}

impl Remembered {
    /// Forgets what would be refused by its time anyway.
    fn forget_expired(&mut self, now: i64) {
        while let Some((at, id)) = self.order.front()
            && now - at > TOLERANCE_SECONDS
        {
            self.ids.remove(id);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;

    #[test]
    fn a_webhook_counts_once_within_five_minutes() {
        let webhooks = Webhooks::default();
        assert_eq!(webhooks.note("a", "1", NOW - 300, NOW), Seen::First);
        assert_eq!(webhooks.note("a", "1", NOW - 300, NOW), Seen::Before);
        assert_eq!(webhooks.note("b", "1", NOW + 300, NOW), Seen::First);
        for at in [NOW - 301, NOW + 301, i64::MIN, i64::MAX] {
            assert_eq!(webhooks.note("a", "2", at, NOW), Seen::TooOld, "{at}");
        }
        assert_eq!(webhooks.note("a", "1", NOW - 300, NOW + 1), Seen::TooOld);
        webhooks.forget("b", "1");
        assert_eq!(webhooks.note("b", "1", NOW, NOW), Seen::First);
    }

    #[test]
    fn the_memory_has_a_bound_and_nothing_forgotten_comes_again() {
        let webhooks = Webhooks::default();
        for number in 0..=REMEMBERED_MAX {
            let at = NOW + i64::from(number > 0);
            assert_eq!(
                webhooks.note("a", &number.to_string(), at, NOW),
                Seen::First
            );
        }
        assert_eq!(webhooks.0.lock()["a"].order.len(), REMEMBERED_MAX);
        assert_eq!(webhooks.note("a", "0", NOW, NOW), Seen::TooOld);
        assert_eq!(webhooks.note("a", "1", NOW + 1, NOW), Seen::Before);
    }
}

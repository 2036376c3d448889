//! How often one token may ask, where it names a class of the settings.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
};

use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};

use crate::{model::TokenId, settings};

/// Requests after which tokens that did not ask lately are forgotten: so seldom that it costs each next to nothing.
const TIDY_EVERY: u32 = 65_536;

/// The limits of all classes, each with what its tokens have asked lately.
#[derive(Default)]
pub(super) struct Limits(BTreeMap<String, Class>);

struct Class {
    limiter: DefaultKeyedRateLimiter<TokenId>,
    requests: AtomicU32,
}

impl Limits {
    /// The classes of the settings.
    pub(super) fn new(settings: &settings::RateLimit) -> Self {
        let limiter = |class: &settings::RateClass| {
            let burst = class.burst.unwrap_or(class.requests_per_second);
            let quota = Quota::per_second(class.requests_per_second).allow_burst(burst);
            let class_of = Class {
                limiter: RateLimiter::keyed(quota),
                requests: AtomicU32::new(0),
            };
            (class.name.clone(), class_of)
        };
        Self(settings.classes.iter().map(limiter).collect())
    }

    /// Whether there is a class of this name.
    pub(super) fn has(&self, class: &str) -> bool {
        self.0.contains_key(class)
    }

    /// All names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Counts a request of a token; fails with the whole seconds after which it may ask again.
    ///
    /// A class that the settings have no more limits nobody.
    pub(super) fn admit(&self, class: &str, id: TokenId) -> Result<(), u64> {
        let Some(Class { limiter, requests }) = self.0.get(class) else {
            return Ok(());
        };
        if requests.fetch_add(1, Ordering::Relaxed) % TIDY_EVERY == TIDY_EVERY - 1 {
            limiter.retain_recent();
        }
        limiter.check_key(&id).map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_a_token_has_to_wait_alone() {
        let class: settings::RateClass =
            toml::from_str("name = \"slow\"\nrequests_per_second = 1\nburst = 3").unwrap();
        let limits = Limits::new(&settings::RateLimit {
            classes: vec![class],
        });
        let [one, other] = [1, 2].map(|number| TokenId::new([number; 16]));
        for _ in 0..3 {
            assert_eq!(limits.admit("slow", one), Ok(()));
        }
        assert_eq!(limits.admit("slow", one), Err(1));
        assert_eq!(limits.admit("slow", other), Ok(()));
        assert_eq!(limits.admit("gone", one), Ok(()));
    }
}

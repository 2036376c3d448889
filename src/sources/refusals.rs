//! Parts that the upstream refused for good, and until when they are left alone.
//!
//! A revoked key is not asked for at every poll while other parts of the source go on: it would fill the upstream's
//! logs, and may get the caller banned. A part that is left alone goes on failing with what the upstream said.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{FetchError, PartId};
use crate::settings::Poll;

/// What can be refused by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refused {
    /// The list of connections.
    Connections,
    /// A part of the fetch.
    Part(PartId),
}

/// What stands refused; at most one entry per part of the last fetches.
#[derive(Default)]
pub(super) struct Refusals {
    until: BTreeMap<Refused, (FetchError, Instant)>,
}

impl Refusals {
    /// Why something is to be left alone now, if it is.
    pub(super) fn standing(&self, what: &Refused, now: Instant) -> Option<FetchError> {
        let (error, until) = self.until.get(what)?;
        (now < *until).then(|| error.clone())
    }

    /// Notes how asking ended: refused for good it is left alone for `rest`, anything else ends that.
    pub(super) fn note(
        &mut self,
        what: Refused,
        error: Option<&FetchError>,
        rest: Duration,
        now: Instant,
    ) {
        match error.filter(|error| error.is_permanent()) {
            Some(error) => {
                self.until.insert(what, (error.clone(), now + rest));
            }
            None => drop(self.until.remove(&what)),
        }
    }

    /// Forgets parts that are asked for no more.
    pub(super) fn keep(&mut self, is_asked: impl Fn(&PartId) -> bool) {
        self.until.retain(|what, _| match what {
            Refused::Connections => true,
            Refused::Part(part) => is_asked(part),
        });
    }
}

/// How long a part is left alone: the longest wait between polls, less its jitter, so that the poll after a wait asks.
pub(super) fn rest(poll: &Poll) -> Duration {
    let longest = poll.failure_backoff_max.max(poll.interval);
    longest.mul_f64((1.0 - poll.jitter).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_mins(10);

    fn refusal() -> FetchError {
        FetchError::Unauthorized {
            status: 401,
            message: String::new(),
        }
    }

    #[test]
    fn a_refusal_stands_for_its_time_and_what_is_passing_does_not_stand_at_all() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let part = || Refused::Part(PartId::Experiments);
        refusals.note(part(), Some(&FetchError::Timeout), REST, now);
        assert!(refusals.standing(&part(), now).is_none());
        refusals.note(part(), Some(&refusal()), REST, now);
        let found = refusals.standing(&part(), now + REST - Duration::from_nanos(1));
        assert_eq!(found.unwrap().code(), "unauthorized");
        assert!(refusals.standing(&Refused::Connections, now).is_none());
        assert!(refusals.standing(&part(), now + REST).is_none());
    }

    #[test]
    fn any_other_end_and_a_part_that_is_gone_end_it() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let payload = |key: &str| Refused::Part(PartId::Payload(key.to_owned()));
        for key in ["a", "b", "c"] {
            refusals.note(payload(key), Some(&refusal()), REST, now);
        }
        refusals.note(payload("a"), None, REST, now);
        refusals.keep(|part| *part != PartId::Payload("b".to_owned()));
        let stands = |key| refusals.standing(&payload(key), now).is_some();
        assert_eq!(["a", "b", "c"].map(stands), [false, false, true]);
    }

    #[test]
    fn the_poll_after_the_longest_wait_asks_again() {
        let poll = Poll {
            failure_backoff_max: REST,
            jitter: 0.1,
            ..Poll::default()
        };
        assert_eq!(rest(&poll), Duration::from_mins(9));
        let rare = Poll {
            interval: Duration::from_hours(1),
            jitter: 0.0,
            ..poll
        };
        assert_eq!(rest(&rare), Duration::from_hours(1));
    }
}

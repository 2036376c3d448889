//! What was asked of the upstream, for tests to look at.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use tokio::time::Instant;

use super::http::Request;

/// Requests remembered; counts go on beyond it.
///
/// A demo runs for days, a test asks for hundreds.
const KEPT_MAX: usize = 10_000;

/// A class of routes that faults and counts refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// `GET /api/features/{key}`.
    Features,
    /// `GET /api/v1/experiments`.
    Experiments,
    /// `GET /api/v1/sdk-connections`.
    Connections,
    /// `GET /api/v1/sdk-payload/{key}`.
    SdkPayload,
    /// `GET /sub/{key}`.
    Stream,
}

impl Route {
    /// The class a path belongs to, if any.
    pub(super) fn of(path: &str) -> Option<Self> {
        match path {
            "/api/v1/experiments" => Some(Self::Experiments),
            "/api/v1/sdk-connections" => Some(Self::Connections),
            _ if path.starts_with("/api/v1/sdk-payload/") => Some(Self::SdkPayload),
            _ if path.starts_with("/api/features/") => Some(Self::Features),
            _ if path.starts_with("/sub/") => Some(Self::Stream),
            _ => None,
        }
    }

    /// Whether it belongs to the management API, which has its own error shape and rate limit.
    pub(super) fn is_rest(self) -> bool {
        matches!(
            self,
            Self::Experiments | Self::Connections | Self::SdkPayload
        )
    }
}

/// One request that arrived, whatever became of it.
#[derive(Clone, Debug)]
pub struct RequestLog {
    /// `GET`, `POST`, …
    pub method: String,
    /// As on the request line.
    pub path_and_query: String,
    /// Names in lower case, in the order sent.
    pub headers: Vec<(String, String)>,
    /// The body; empty for most.
    pub body: Bytes,
    /// Its class, if it has one.
    pub route: Option<Route>,
    /// When it had been read.
    pub at: Instant,
}

impl RequestLog {
    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The newest requests and how many there were of each class.
#[derive(Debug, Default)]
pub(super) struct Journal {
    kept: VecDeque<RequestLog>,
    counts: HashMap<Route, usize>,
}

impl Journal {
    pub(super) fn record(&mut self, request: &Request) {
        let route = Route::of(request.path());
        if let Some(route) = route {
            *self.counts.entry(route).or_default() += 1;
        }
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(RequestLog {
            method: request.method.clone(),
            path_and_query: request.path_and_query.clone(),
            headers: request.headers.clone(),
            body: request.body.clone(),
            route,
            at: Instant::now(),
        });
    }

    pub(super) fn requests(&self) -> Vec<RequestLog> {
        self.kept.iter().cloned().collect()
    }

    pub(super) fn count(&self, route: Route) -> usize {
        self.counts.get(&route).copied().unwrap_or(0)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

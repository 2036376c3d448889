//! What a route is, and the usual kinds of them.

use super::control::Verb;
use crate::settings::Role;

/// Which listener answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// SDKs, caches, consumers.
    Data,
    /// Operators.
    Admin,
}

impl Plane {
    /// Label in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Admin => "admin",
        }
    }
}

/// One entry of the route table.
pub struct Route {
    /// Which listener answers.
    pub plane: Plane,
    /// Methods answered; all others on the path get 405 unless another entry has them.
    pub methods: &'static [&'static str],
    /// Path with `{parameters}`.
    pub path: &'static str,
    /// What a caller must be; `None`: anybody.
    pub role: Option<Role>,
    /// Name in the audit, for routes that change something.
    pub action: Option<&'static str>,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// Concrete paths that carry configuration of an environment, or of a connection by its client key; none for other
    /// routes.
    pub probes: fn(environment: &str, client_key: &str) -> Vec<String>,
    pub(super) handler: fn() -> actix_web::Route,
}

impl Route {
    /// A data route with any handler, to measure those of [`super::ROUTES`] against; served by [`super::baseline_app`].
    pub const fn baseline(path: &'static str, handler: fn() -> actix_web::Route) -> Self {
        Self {
            methods: &["GET", "HEAD", "POST"],
            ..open(Plane::Data, path, "a baseline for measurements", handler)
        }
    }
}

pub(super) const READ: &[&str] = &["GET", "HEAD"];
pub(super) const GET: &[&str] = &["GET"];
pub(super) const POST: &[&str] = &["POST"];
pub(super) const DELETE: &[&str] = &["DELETE"];
pub(super) const ASK: &[&str] = &["GET", "HEAD", "POST"];

fn no_probes(_: &str, _: &str) -> Vec<String> {
    Vec::new()
}

/// A route that anybody may read and that carries no configuration.
pub const fn open(
    plane: Plane,
    path: &'static str,
    summary: &'static str,
    handler: fn() -> actix_web::Route,
) -> Route {
    Route {
        plane,
        methods: READ,
        path,
        role: None,
        action: None,
        summary,
        probes: no_probes,
        handler,
    }
}

/// A data route that answers a question, in the query or in a body.
pub(super) const fn ask(
    path: &'static str,
    summary: &'static str,
    handler: fn() -> actix_web::Route,
) -> Route {
    Route {
        methods: ASK,
        ..open(Plane::Data, path, summary, handler)
    }
}

/// An admin route for viewers.
pub(super) const fn view(
    path: &'static str,
    summary: &'static str,
    handler: fn() -> actix_web::Route,
) -> Route {
    Route {
        role: Some(Role::Viewer),
        ..open(Plane::Admin, path, summary, handler)
    }
}

/// An admin route for operators.
pub(super) const fn order(
    path: &'static str,
    verb: Verb,
    summary: &'static str,
    handler: fn() -> actix_web::Route,
) -> Route {
    let action = Some(verb.action());
    Route {
        methods: POST,
        role: Some(Role::Operator),
        action,
        ..open(Plane::Admin, path, summary, handler)
    }
}

/// An admin route by which operators decide something about an environment.
pub(super) const fn decision(
    methods: &'static [&'static str],
    path: &'static str,
    action: &'static str,
    summary: &'static str,
    handler: fn() -> actix_web::Route,
) -> Route {
    Route {
        methods,
        role: Some(Role::Operator),
        action: Some(action),
        ..open(Plane::Admin, path, summary, handler)
    }
}

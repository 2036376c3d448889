//! The outside: two listeners, and the table of everything they answer.
//!
//! [`ROUTES`] is the whole surface. Services are configured from it, and so are the role checks, the counters and
//! `Allow`; tests and the README check walk it. Handlers extract, ask once, answer; they reach configuration only
//! through the worker's [`crate::actors::SnapshotReader`], and status codes only through [`error::ApiError`].

mod audit;
mod auth;
mod changes;
mod consumers;
mod control;
mod credentials;
mod decide;
mod decisions;
mod documents;
mod door;
pub mod error;
mod evaluate;
mod evaluation;
mod extract;
mod fields;
mod flags;
mod frontend;
mod growthbook;
mod health;
mod held;
mod limits;
mod negotiate;
mod observe;
mod ofrep;
mod overrides;
mod paths;
mod pin;
mod reads;
mod replay;
mod revisions;
mod route;
mod scoped;
pub mod server;
mod services;
mod state;
mod status;
mod stream;
mod times;
mod tokens;

#[cfg(test)]
mod tests;

use actix_web::web;

use self::{
    control::Verb,
    route::{ASK, DELETE, GET, POST, ask, decision, order, view},
};
pub use self::{
    door::Door,
    paths::paths_of,
    route::{Plane, Route, open},
    server::{admin_server, data_server},
    services::{admin_app, baseline_app, configure, cors, data_app, tidy_path},
    state::{HttpState, Shared},
};
use crate::{
    actors::config_service::Fate,
    model::snapshot::{SNAPSHOT_DOCUMENT, connection_document},
    settings::Role,
};

/// Every route of both planes, the busiest first: they are tried in this order.
pub const ROUTES: &[Route] = &[
    Route {
        probes: |environment, _| paths_of(SNAPSHOT_DOCUMENT, environment, false),
        ..open(
            Plane::Data,
            "/v1/snapshot/{environment}",
            "the latest stitched snapshot",
            || web::route().to(reads::snapshot),
        )
    },
    ask("/v1/decide", "the experiments that a unit is in", || {
        web::route().to(decide::decide)
    }),
    Route {
        methods: POST,
        ..ask("/v1/decide/batch", "the same for many units", || {
            web::route().to(decide::batch)
        })
    },
    ask(
        "/v1/evaluate/{key}",
        "the value of one feature for a unit",
        || web::route().to(evaluate::evaluate),
    ),
    ask("/api/decide", "another name of `/v1/decide`", || {
        web::route().to(decide::decide)
    }),
    ask("/decide", "another name of `/v1/decide`", || {
        web::route().to(decide::decide)
    }),
    Route {
        probes: |environment, _| paths::experiments(environment),
        ..open(
            Plane::Data,
            "/api/v1/experiments",
            "experiment configs for a consumer",
            || web::route().to(reads::experiments),
        )
    },
    Route {
        probes: |environment, client_key| {
            paths_of(&connection_document(client_key, false), environment, false)
        },
        ..open(
            Plane::Data,
            "/api/features/{client_key}",
            "the payload of an SDK connection, as GrowthBook sends it",
            || web::route().to(growthbook::features::features),
        )
    },
    Route {
        methods: GET,
        ..open(
            Plane::Data,
            "/v1/stream/{environment}",
            "server-sent events, one per revision",
            || web::route().to(stream::follow),
        )
    },
    Route {
        methods: POST,
        ..open(
            Plane::Data,
            "/api/eval/{client_key}",
            "a connection's payload, evaluated for one user",
            || web::route().to(growthbook::eval::evaluate),
        )
    },
    Route {
        methods: GET,
        ..open(
            Plane::Data,
            "/sub/{client_key}",
            "server-sent events, one per change of a connection's payload",
            || web::route().to(growthbook::sub::sub),
        )
    },
    Route {
        methods: POST,
        ..open(
            Plane::Data,
            "/ofrep/v1/evaluate/flags",
            "every flag that a token may see, for OpenFeature's clients",
            || web::route().to(ofrep::all),
        )
    },
    Route {
        methods: POST,
        ..open(
            Plane::Data,
            "/ofrep/v1/evaluate/flags/{key}*",
            "one flag, for OpenFeature's clients",
            || web::route().to(ofrep::one),
        )
    },
    Route {
        methods: GET,
        ..open(
            Plane::Data,
            "/ofrep/v1/events",
            "server-sent events: ask for the flags again",
            || web::route().to(ofrep::events::follow),
        )
    },
    ask(
        "/api/frontend",
        "enabled toggles, for Unleash's clients",
        || web::route().to(frontend::toggles),
    ),
    Route {
        methods: POST,
        ..open(
            Plane::Data,
            "/api/frontend/client/metrics",
            "what Unleash's clients have used",
            || web::route().to(frontend::metrics),
        )
    },
    Route {
        methods: POST,
        ..open(
            Plane::Data,
            "/api/frontend/client/register",
            "Unleash's clients say hello",
            || web::route().to(frontend::register),
        )
    },
    Route {
        methods: POST,
        ..open(
            Plane::Data,
            "/proxy/features",
            "takes a payload that GrowthBook pushes",
            || web::route().to(growthbook::push::push),
        )
    },
    Route {
        methods: POST,
        ..open(
            Plane::Data,
            "/webhooks/growthbook/{source}",
            "GrowthBook's SDK webhook: polls the source at once",
            || web::route().to(growthbook::webhook::webhook),
        )
    },
    open(
        Plane::Data,
        "/healthcheck",
        "how GrowthBook finds its proxy",
        || web::route().to(growthbook::healthcheck::healthcheck),
    ),
    open(Plane::Data, "/livez", "whether the process answers", || {
        web::route().to(health::livez)
    }),
    open(
        Plane::Data,
        "/readyz",
        "whether there is something to serve",
        || web::route().to(|state| health::readyz(Plane::Data, state)),
    ),
    open(
        Plane::Admin,
        "/livez",
        "whether the process answers",
        || web::route().to(health::livez),
    ),
    open(
        Plane::Admin,
        "/readyz",
        "whether there is something to serve, and what is degraded",
        || web::route().to(|state| health::readyz(Plane::Admin, state)),
    ),
    open(Plane::Admin, "/metrics", "Prometheus metrics", || {
        web::route().to(health::metrics)
    }),
    view(
        "/admin/status",
        "sources, environments, actors, consumers, database, queues",
        || web::route().to(status::status),
    ),
    view("/admin/audit", "who did what, when, why", || {
        web::route().to(audit::list)
    }),
    view(
        "/admin/environments/{environment}/issues",
        "problems of the configuration, item by item",
        || web::route().to(status::issues),
    ),
    Route {
        methods: ASK,
        ..view(
            "/v1/decide",
            "the experiments that a unit was in, in any revision",
            || web::route().to(decide::decide),
        )
    },
    view(
        "/admin/environments/{environment}/revisions",
        "what was served before, newest first",
        || web::route().to(revisions::list),
    ),
    view(
        "/admin/environments/{environment}/revisions/{revision}",
        "what is known about one revision",
        || web::route().to(revisions::one),
    ),
    view(
        "/admin/environments/{environment}/revisions/{revision}/snapshot",
        "the snapshot of a revision, byte for byte",
        || web::route().to(revisions::snapshot),
    ),
    view(
        "/admin/environments/{environment}/revisions/{revision}/diff/{other}",
        "what differs between two revisions",
        || web::route().to(revisions::difference),
    ),
    view(
        "/admin/environments/{environment}/pin",
        "what is pinned, and what is skipped because of it",
        || web::route().to(pin::show),
    ),
    decision(
        POST,
        "/admin/environments/{environment}/pin",
        pin::PIN,
        "serves the content of a revision",
        || web::route().to(pin::pin),
    ),
    decision(
        DELETE,
        "/admin/environments/{environment}/pin",
        pin::UNPIN,
        "serves the newest content again",
        || web::route().to(pin::unpin),
    ),
    Route {
        role: Some(Role::Operator),
        ..view(
            "/admin/environments/{environment}/overrides",
            "what operators force",
            || web::route().to(overrides::list),
        )
    },
    decision(
        POST,
        "/admin/environments/{environment}/overrides",
        overrides::SET,
        "forces a feature's value or an experiment off",
        || web::route().to(overrides::set),
    ),
    decision(
        DELETE,
        "/admin/environments/{environment}/overrides/{id}",
        overrides::REMOVE,
        "puts an end to an override",
        || web::route().to(overrides::remove),
    ),
    Route {
        role: Some(Role::Operator),
        ..view(
            "/admin/environments/{environment}/held",
            "inputs that guards keep from being published",
            || web::route().to(held::list),
        )
    },
    decision(
        POST,
        "/admin/environments/{environment}/held/{source}/approve",
        held::APPROVE,
        "takes a held input in",
        || held::decide(Fate::Approve),
    ),
    decision(
        POST,
        "/admin/environments/{environment}/held/{source}/discard",
        held::DISCARD,
        "says that a held input is not wanted",
        || held::decide(Fate::Discard),
    ),
    Route {
        role: Some(Role::Admin),
        ..view(
            "/admin/tokens",
            "tokens of clients, without their secrets",
            || web::route().to(tokens::list),
        )
    },
    Route {
        role: Some(Role::Admin),
        ..decision(
            POST,
            "/admin/tokens",
            tokens::CREATE,
            "makes a token",
            || web::route().to(tokens::create),
        )
    },
    Route {
        role: Some(Role::Admin),
        ..decision(
            DELETE,
            "/admin/tokens/{id}",
            tokens::REVOKE,
            "takes a token back",
            || web::route().to(tokens::revoke),
        )
    },
    Route {
        role: Some(Role::Admin),
        ..decision(
            POST,
            "/admin/tokens/{id}/rotate",
            tokens::ROTATE,
            "gives a token another secret",
            || web::route().to(tokens::rotate),
        )
    },
    order(
        "/admin/sources/{id}/pause",
        Verb::Pause,
        "stops asking a source",
        || control::one(Verb::Pause),
    ),
    order(
        "/admin/sources/{id}/resume",
        Verb::Resume,
        "asks a source again",
        || control::one(Verb::Resume),
    ),
    order(
        "/admin/sources/{id}/poll",
        Verb::Poll,
        "asks a source now and waits",
        || control::one(Verb::Poll),
    ),
    order("/admin/pause", Verb::Pause, "pauses every source", || {
        control::all(Verb::Pause)
    }),
    order(
        "/admin/resume",
        Verb::Resume,
        "resumes every source",
        || control::all(Verb::Resume),
    ),
    order(
        "/admin/poll",
        Verb::Poll,
        "polls every source and waits",
        || control::all(Verb::Poll),
    ),
];

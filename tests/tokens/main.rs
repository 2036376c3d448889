//! Tokens: made, rotated, taken back, kept; and that nobody sees more than theirs may.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and reads its own environment"
)]

#[path = "../support/mod.rs"]
mod support;

mod kept;
mod lifecycle;
mod reads;
mod required;
mod scopes;

use reqwest::Response;
use serde_json::{Value, json};

use support::{ENVIRONMENT, TestApp};

/// A token of this kind for all projects.
fn of_kind(kind: &str) -> Value {
    json!({"kind": kind, "environment": ENVIRONMENT})
}

/// A token of this kind for some projects.
fn scoped(kind: &str, projects: &[&str]) -> Value {
    json!({"kind": kind, "environment": ENVIRONMENT, "projects": projects})
}

/// `GET /api/frontend`, the cheapest route that needs a token.
async fn ask(app: &TestApp, secret: &str) -> Response {
    let url = format!("{}/api/frontend", app.data);
    let request = app.http.get(url).header("authorization", secret);
    request.send().await.unwrap()
}

async fn status(app: &TestApp, secret: &str) -> u16 {
    ask(app, secret).await.status().as_u16()
}

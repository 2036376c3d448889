//! The service with a flag of every type, reached through a wire, and what clients must make of the flags.

use serde_json::{Value, json};

use crate::support::{
    Bed, ENVIRONMENT, TestApp, eventually,
    programs::Program,
    proxy::{Proxy, Wire},
};

/// The flag whose value changes.
pub(crate) const FLAG: &str = "text";

/// The service behind a wire, so that it has one address whatever happens to it.
pub(crate) struct Stand {
    pub(crate) bed: Bed,
    pub(crate) app: TestApp,
    wire: Proxy,
    pub(crate) token_id: String,
    pub(crate) secret: String,
}

impl Stand {
    /// With a token of this kind.
    pub(crate) async fn start(kind: &str) -> Self {
        let bed = bed();
        let app = bed.start_loaded().await;
        app.until_polled().await;
        let spec = json!({"kind": kind, "environment": ENVIRONMENT});
        let (token_id, secret) = app.token(&spec).await;
        let wire = Proxy::start(address(&app)).await;
        Self {
            bed,
            app,
            wire,
            token_id,
            secret,
        }
    }

    /// The base URL of OpenFeature's clients.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.wire.address)
    }

    /// The base URL of Unleash's clients.
    pub(crate) fn unleash_url(&self) -> String {
        format!("{}/api/frontend", self.url())
    }

    /// Gives the watched flag another value and has it published.
    pub(crate) async fn change(&self, value: &str) {
        self.bed
            .upstream
            .set_feature(FLAG, json!({"defaultValue": value}));
        let before = self.app.revision();
        eventually("a poll publishes it", async || {
            self.app.poll().await;
            (self.app.revision() > before).then_some(())
        })
        .await;
    }

    /// Stops the service; clients find nobody.
    pub(crate) async fn stop(self) -> Stopped {
        self.wire.set(Wire::Cut);
        self.app.stop().await;
        Stopped {
            bed: self.bed,
            wire: self.wire,
            token_id: self.token_id,
            secret: self.secret,
        }
    }

    /// Checks of the watched flag that clients reported as enabled.
    pub(crate) async fn usage(&self) -> u64 {
        let line = format!(
            "stitchd_feature_usage_total{{environment=\"{ENVIRONMENT}\",feature=\"{FLAG}\",enabled=\"yes\"}} "
        );
        let metrics = self.app.admin_get("/metrics").await;
        let text = String::from_utf8(metrics.body.to_vec()).unwrap();
        let found = text.lines().find_map(|found| found.strip_prefix(&line));
        found.map_or(0, |count| count.parse().unwrap())
    }
}

/// A service that was stopped, and its wire.
pub(crate) struct Stopped {
    bed: Bed,
    wire: Proxy,
    token_id: String,
    secret: String,
}

impl Stopped {
    /// Starts it again where clients look for it.
    pub(crate) async fn start(self) -> Stand {
        let app = self.bed.start_loaded().await;
        self.wire.lead_to(address(&app));
        self.wire.set(Wire::Pass);
        Stand {
            bed: self.bed,
            app,
            wire: self.wire,
            token_id: self.token_id,
            secret: self.secret,
        }
    }
}

fn address(app: &TestApp) -> std::net::SocketAddr {
    app.data.strip_prefix("http://").unwrap().parse().unwrap()
}

fn bed() -> Bed {
    let bed = Bed::new();
    let is_pro = json!({"plan": "pro"});
    let experiment = json!({
        "id": "fr_x", "key": "button-2026", "hashAttribute": "id", "hashVersion": 2,
        "variations": ["grey", "green"], "weights": [0, 1], "coverage": 1,
        "meta": [{"key": "control"}, {"key": "treatment"}],
    });
    bed.upstream.set_features(json!({
        "button": {"defaultValue": "none", "rules": [experiment]},
        "nothing": {"defaultValue": null},
        "object": {"defaultValue": {"size": 1, "list": [1, "two"]}},
        "plan": {"defaultValue": false, "rules": [{"id": "fr_p", "condition": is_pro, "force": true}]},
        "ratio": {"defaultValue": 0.5, "rules": [{"id": "fr_r", "condition": is_pro, "force": 2}]},
        "switch": {"defaultValue": true},
        FLAG: {"defaultValue": "first"},
        "whole": {"defaultValue": 3, "rules": [{"id": "fr_w", "condition": is_pro, "force": 4.0}]},
    }));
    bed
}

/// The flags with the types that a client reads them as, as JSON; `whole` and `fraction`: its names of those types.
pub(crate) fn flags(whole: &str, fraction: &str) -> String {
    json!({
        "absent": "missing",
        "button": "string",
        "nothing": "string",
        "object": "object",
        "plan": "boolean",
        "ratio": fraction,
        "switch": "boolean",
        FLAG: "string",
        "whole": whole,
    })
    .to_string()
}

/// The user of these tests.
pub(crate) fn user() -> Value {
    json!({"targetingKey": "user-1", "plan": "free"})
}

/// The same user on another plan.
pub(crate) fn pro_user() -> Value {
    json!({"targetingKey": "user-1", "plan": "pro"})
}

/// Value, variant and reason of each flag for a user who is on the plan, or not.
pub(crate) fn expected(is_pro: bool) -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let object = json!({"size": 1, "list": [1, "two"]});
    let mut expected = vec![
        ("button", json!("green"), "treatment", "SPLIT"),
        ("object", object, "default", "STATIC"),
        ("switch", json!(true), "default", "STATIC"),
        (FLAG, json!("first"), "default", "STATIC"),
    ];
    expected.extend(if is_pro {
        [
            ("plan", json!(true), "fr_p", "TARGETING_MATCH"),
            ("ratio", json!(2.0), "fr_r", "TARGETING_MATCH"),
            ("whole", json!(4), "fr_w", "TARGETING_MATCH"),
        ]
    } else {
        [
            ("plan", json!(false), "default", "DEFAULT"),
            ("ratio", json!(0.5), "default", "DEFAULT"),
            ("whole", json!(3), "default", "DEFAULT"),
        ]
    });
    expected
}

/// Holds what a client says of the flags against what it must make of them; with `reasons` of those, too.
pub(crate) fn check(details: &Value, is_pro: bool, reasons: bool) {
    for (key, value, variant, reason) in expected(is_pro) {
        let found = &details["flags"][key];
        // A client without integers shows 2.0 as 2.
        let is_equal = match (found["value"].as_f64(), value.as_f64()) {
            (Some(found), Some(value)) => (found - value).abs() < f64::EPSILON,
            _ => found["value"] == value,
        };
        assert!(is_equal, "{key}: {value} is not in {found}");
        assert_eq!(found["variant"], variant, "{key}");
        assert!(!reasons || found["reason"] == reason, "{key}: {found}");
    }
}

/// Holds a client of servers to this: with the service away its values are defaults, and right again once it is back.
pub(crate) async fn check_absence(stand: Stand, mut client: Program) {
    check(&client.event("details").await, false, true);
    let stopped = stand.stop().await;
    client.tell(&json!({}));
    let details = client.event("details").await;
    assert_eq!(details["flags"][FLAG]["value"], "default");
    let stand = stopped.start().await;
    client.tell(&json!({}));
    check(&client.event("details").await, false, true);
    drop(client);
    stand.app.stop().await;
}

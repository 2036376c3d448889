//! What operators force, what receivers are told and what followers have heard, whatever breaks.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    load::{FOLLOWERS, snapshot_path},
    stage::Stage,
    streams,
    support::{ENVIRONMENT, answer, eventually},
    upstream::FORCED,
};

/// Signs webhooks.
const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// The value that an operator has forced.
#[derive(Default)]
pub(crate) struct Forced {
    value: u64,
    /// Whether the answer said that it outlives the process.
    is_durable: bool,
}

/// For the settings: who is told of revisions.
pub(crate) fn publish(hook: &str) -> String {
    format!("[publish]\nwebhooks = [{{ url = \"{hook}/hook\", secret = \"{SECRET}\" }}]")
}

impl Stage {
    /// Forces the next value of a feature; it is served as soon as that is answered.
    pub(crate) async fn force(&mut self, what: &str) {
        self.forced.value += 1;
        let value = self.forced.value;
        let order = json!({
            "kind": "feature", "key": FORCED, "value": value, "reason": what.chars().take(100).collect::<String>(),
        });
        let url = format!(
            "{}/admin/environments/{ENVIRONMENT}/overrides",
            self.admin()
        );
        let done = eventually(&format!("{what}: {FORCED} is {value}"), async || {
            let sent = self.http.post(&url).body(order.to_string());
            let sent = sent.header("content-type", "application/json").send().await;
            let answer = answer(sent.unwrap()).await;
            // Whoever is being restarted may keep an order waiting for too long.
            assert!([201, 503].contains(&answer.status), "{what}: {answer:?}");
            (answer.status == 201).then(|| answer.json())
        })
        .await;
        self.forced.is_durable = done["durable"] == true;
        assert_eq!(self.served_force().await, value, "{what}");
    }

    /// What was forced last is still served; `is_killed`: the process has been, so that only what is stored is owed.
    pub(crate) async fn check_forced(&self, what: &str, is_killed: bool) {
        if self.forced.is_durable || !is_killed {
            assert_eq!(self.served_force().await, self.forced.value, "{what}");
        }
    }

    async fn served_force(&self) -> Value {
        let snapshot = self.get(&snapshot_path()).await.json();
        snapshot["features"][FORCED]["defaultValue"].clone()
    }

    /// Waits until everybody has been told what is served: receivers and all followers.
    pub(crate) async fn until_told(&self, what: &str) {
        let is_told = async || {
            let revision = self.served_revision().await;
            let counter = self.served_counter().await;
            let have_heard =
                |path: &str, value: u64| self.seen.followed(path) == [value; FOLLOWERS];
            let is_told = self.told().contains(&revision)
                && have_heard(&streams::revisions(), revision)
                && have_heard(&streams::features(), counter);
            is_told.then_some(())
        };
        eventually(&format!("{what}: everybody is told"), is_told).await;
    }

    /// The revisions that the receiver was told of.
    pub(crate) fn told(&self) -> BTreeSet<u64> {
        let requests = self.hook.requests();
        let bodies = requests.iter().map(|request| &request.body);
        bodies
            .map(|body| {
                let body: Value = serde_json::from_slice(body).unwrap();
                body["data"]["revision"].as_u64().unwrap()
            })
            .collect()
    }
}

//! How the fail points of whoever keeps tokens are reached.

use serde_json::json;

use crate::support::{ENVIRONMENT, TestApp};

/// Makes a token, gives it another secret, takes it back, and shows one that nobody knows.
///
/// An order that dies of it is answered 503 and may be given again; a token whose secret nobody was told harms nobody.
pub(crate) async fn pull(app: &TestApp) {
    let body = json!({"kind": "server", "environment": ENVIRONMENT}).to_string();
    let made = app.admin_post("/admin/tokens", &body).await;
    assert!([201, 503].contains(&made.status), "{made:?}");
    if made.status == 201 {
        let made = made.json();
        let path = format!("/admin/tokens/{}", made["id"].as_str().unwrap());
        let rotated = app.admin_post(&format!("{path}/rotate"), "").await;
        assert!([200, 503].contains(&rotated.status), "{rotated:?}");
        let revoked = app.admin_delete(&path).await;
        // Asked again by itself, until it is done.
        assert_eq!(revoked.status, 200, "{revoked:?}");
        assert_eq!(revoked.json()["state"], "revoked");
    }
    let mut unknown = [0; 16];
    getrandom::fill(&mut unknown).unwrap();
    let unknown = stitchd::model::TokenId::new(unknown);
    let secret = format!("srv-{unknown}_{}", "A".repeat(43));
    let question = app.http.post(format!("{}/api/frontend", app.data));
    let answer = question.header("authorization", secret).send().await;
    assert_eq!(answer.unwrap().status(), 401);
}

//! Who is answered: tokens of every kind, shown in either header; and who is not.

use serde_json::json;
use stitchd::cli::demo::upstream::CLIENT_KEY;

use crate::{
    stand::{Ask, Seen, all, bed, one, start},
    support::{TestApp, eventually},
};

/// Asks for one flag and for all, with the same headers; both must end the same.
async fn both(app: &TestApp, with: impl Fn(Ask) -> Ask) -> [Seen; 2] {
    let seen = [with(one("on")).of(app).await, with(all()).of(app).await];
    assert_eq!(seen[0].status, seen[1].status);
    seen
}

async fn status(app: &TestApp, secret: &str) -> u16 {
    both(app, |ask| ask.by(secret)).await[0].status
}

#[tokio::test]
async fn every_kind_of_token_is_taken_in_either_header() {
    let bed = bed();
    let (app, _) = start(&bed).await;
    let mut secrets = vec![CLIENT_KEY.to_owned()];
    for kind in ["client", "server", "frontend"] {
        secrets.push(app.token(&json!({ "kind": kind })).await.1);
    }
    for secret in &secrets {
        for (name, value) in [
            ("authorization", format!("Bearer {secret}")),
            ("authorization", format!("bearer {secret}")),
            ("authorization", secret.clone()),
            ("x-api-key", secret.clone()),
        ] {
            let [single, bulk] = both(&app, |ask| ask.header(name, &value)).await;
            assert_eq!(single.status, 200, "{name}: {value}");
            assert_eq!(single.json()["value"], true);
            assert_eq!(bulk.flag("on")["value"], true);
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn without_a_token_or_with_one_that_nobody_made_it_is_401() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    assert_eq!(both(&app, |ask| ask).await[0].status, 401);
    let mut forged = secret.clone();
    let last = if forged.ends_with('A') { 'E' } else { 'A' };
    forged.pop();
    forged.push(last);
    for odd in ["", "sdk-nobody", &secret[..secret.len() - 1], &forged] {
        assert_eq!(status(&app, odd).await, 401, "{odd}");
    }
    assert_eq!(status(&app, &secret).await, 200);
    app.stop().await;
}

#[tokio::test]
async fn a_revoked_token_is_401_at_once() {
    let bed = bed();
    let (app, secret) = start(&bed).await;
    let (id, revoked) = app.token(&json!({"kind": "server"})).await;
    assert_eq!(status(&app, &revoked).await, 200);
    let answer = app.admin_delete(&format!("/admin/tokens/{id}")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(status(&app, &revoked).await, 401);
    assert_eq!(status(&app, &secret).await, 200);
    app.stop().await;
}

#[tokio::test]
async fn an_expired_token_is_401() {
    let bed = bed();
    let (app, _) = start(&bed).await;
    let spec = json!({"kind": "client", "expires_in": "1ms"});
    let (_, brief) = app.token(&spec).await;
    eventually("its time is over", async || {
        let seen = one("on").by(&brief).of(&app).await;
        (seen.status == 401).then_some(())
    })
    .await;
    assert_eq!(status(&app, &brief).await, 401);
    app.stop().await;
}

#[tokio::test]
async fn both_secrets_of_a_rotated_token_are_taken_until_the_old_ones_time_is_over() {
    let bed = bed();
    let (app, _) = start(&bed).await;
    let (id, old) = app.token(&json!({"kind": "frontend"})).await;
    let rotate = async |grace: &str| {
        let path = format!("/admin/tokens/{id}/rotate");
        let body = json!({ "grace": grace }).to_string();
        let answer = app.admin_post(&path, &body).await;
        answer.json()["secret"].as_str().unwrap().to_owned()
    };
    let new = rotate("1h").await;
    assert_eq!(
        (status(&app, &old).await, status(&app, &new).await),
        (200, 200)
    );
    let newest = rotate("0s").await;
    assert_eq!(
        (status(&app, &new).await, status(&app, &newest).await),
        (401, 200)
    );
    app.stop().await;
}

#[tokio::test]
async fn a_token_of_the_admin_plane_opens_nothing_here() {
    const SECRET: &str = "an-admin-secret";
    let mut bed = bed();
    bed.extra =
        format!("[admin]\ntokens = [{{name = \"eva\", role = \"admin\", secret = \"{SECRET}\"}}]");
    let app = bed.start_loaded().await;
    let url = format!("{}/admin/status", app.admin);
    let known = app.http.get(url).bearer_auth(SECRET).send().await.unwrap();
    assert_eq!(known.status(), 200);
    assert_eq!(status(&app, SECRET).await, 401);
    app.stop().await;
}

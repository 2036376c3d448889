//! From the control plane: making, listing, rotating, revoking, and what is wrong with an order.

use serde_json::{Value, json};
use stitchd::settings::{Profile, from_toml};

use crate::{
    ask, of_kind, scoped, status,
    support::{Bed, ENVIRONMENT, TestApp, eventually},
};

#[tokio::test]
async fn a_secret_is_shown_once_and_counts_at_once() {
    let bed = Bed::new();
    let app = bed.start_loaded().await;
    for (kind, begins) in [
        ("client", "sdk-".to_owned()),
        ("server", "srv-".to_owned()),
        ("frontend", format!("*:{ENVIRONMENT}.")),
    ] {
        let (id, secret) = app.token(&of_kind(kind)).await;
        assert!(
            secret.starts_with(&begins) && secret.contains(&id),
            "{secret}"
        );
        assert_eq!(status(&app, &secret).await, 200, "{kind}");
        let listed = app.admin_get("/admin/tokens").await;
        let listed = String::from_utf8(listed.body.to_vec()).unwrap();
        assert!(
            listed.contains(&id) && !listed.contains(&secret),
            "{listed}"
        );
    }
    let several =
        json!({"kind": "frontend", "environment": ENVIRONMENT, "projects": ["b", "a", "b"]});
    let (_, secret) = app.token(&several).await;
    assert!(
        secret.starts_with(&format!("[]:{ENVIRONMENT}.")),
        "{secret}"
    );
    app.stop().await;
}

#[tokio::test]
async fn an_old_secret_counts_for_its_grace_and_a_revoked_one_no_more() {
    let bed = Bed::new();
    let app = bed.start_loaded().await;
    let (id, first) = app.token(&of_kind("client")).await;
    let path = format!("/admin/tokens/{id}");
    let rotate = |grace: &'static str| {
        let (app, path) = (&app, format!("{path}/rotate"));
        async move {
            let body = json!({ "grace": grace, "reason": "a test" }).to_string();
            let rotated = app.admin_post(&path, &body).await;
            assert_eq!(rotated.status, 200, "{rotated:?}");
            rotated.json()["secret"].as_str().unwrap().to_owned()
        }
    };
    let second = rotate("1h").await;
    assert_ne!(first, second);
    assert_eq!(status(&app, &first).await, 200);
    assert_eq!(status(&app, &second).await, 200);
    // The one before the last does not count, whatever grace it had.
    let third = rotate("300ms").await;
    assert_eq!(status(&app, &first).await, 401);
    eventually("the grace is over", async || {
        (status(&app, &second).await == 401).then_some(())
    })
    .await;
    let fourth = rotate("0s").await;
    assert_eq!(status(&app, &third).await, 401);
    let revoked = app.admin_delete(&path).await;
    assert_eq!(
        (revoked.status, &revoked.json()["state"]),
        (200, &json!("revoked"))
    );
    assert_eq!(status(&app, &fourth).await, 401);
    let again = app.admin_delete(&path).await;
    assert_eq!(again.json()["revoked_at"], revoked.json()["revoked_at"]);
    let rotated = app.admin_post(&format!("{path}/rotate"), "").await;
    assert_eq!(
        (rotated.status, &rotated.json()["code"]),
        (409, &json!("token_ended"))
    );
    app.stop().await;
}

#[tokio::test]
async fn a_token_expires_by_itself() {
    let bed = Bed::new();
    let app = bed.start_loaded().await;
    let mut body = of_kind("server");
    body["expires_in"] = json!("400ms");
    let (id, secret) = app.token(&body).await;
    let refusal = eventually("it has expired", async || {
        let answer = ask(&app, &secret).await;
        (answer.status() == 401).then_some(answer)
    })
    .await;
    let text = refusal.text().await.unwrap();
    assert!(text.contains("expired"), "{text}");
    let rotated = app
        .admin_post(&format!("/admin/tokens/{id}/rotate"), "")
        .await;
    assert_eq!(rotated.status, 409);
    app.stop().await;
}

#[tokio::test]
async fn tokens_are_listed_in_pages() {
    let bed = Bed::new();
    let app = bed.start_loaded().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(app.token(&scoped("server", &["shop"])).await.0);
    }
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = app
            .admin_get(&format!("/admin/tokens?limit=2{after}"))
            .await
            .json();
        assert_eq!(page["total"], 5);
        for token in page["tokens"].as_array().unwrap() {
            assert_eq!(token["projects"], json!(["shop"]));
            assert_eq!(token["created_by"], "loopback");
            found.push(token["id"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str() else {
            break;
        };
        after = format!("&after={next}");
    }
    made.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, made);
    app.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_an_order_is_named() {
    let bed = Bed::new();
    let app = bed.start_loaded().await;
    let refused = async |body: Value, status: u16, word: &str| {
        let answer = app.admin_post("/admin/tokens", &body.to_string()).await;
        let text = answer.json().to_string();
        assert_eq!(answer.status, status, "{body}: {text}");
        assert!(text.contains(word), "{body}: {text}");
    };
    refused(
        json!({"environment": ENVIRONMENT}),
        400,
        "\"field\":\"kind\"",
    )
    .await;
    refused(json!({"kind": "server"}), 400, "\"field\":\"environment\"").await;
    refused(
        json!({"kind": "server", "environment": "elsewhere"}),
        404,
        ENVIRONMENT,
    )
    .await;
    for (name, value) in [
        ("projects", json!([])),
        ("projects", json!(["a:b"])),
        ("dialect", json!("loose")),
        ("rate_class", json!("none")),
        ("expires_in", json!("soon")),
        ("reason", json!(" ")),
    ] {
        let mut body = of_kind("server");
        body[name] = value;
        refused(body, 400, &format!("\"field\":\"{name}\"")).await;
    }
    let mut body = of_kind("server");
    body["project"] = json!("a");
    refused(body, 400, "unknown field `project`").await;
    for path in ["/admin/tokens/none", "/admin/tokens/AAAAAAAAAAAAAAAAAAAAAA"] {
        let answer = app.admin_delete(path).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (404, &json!("unknown_token"))
        );
    }
    assert_eq!(app.admin_get("/admin/tokens?after=x").await.status, 400);
    assert_eq!(app.admin_get("/admin/tokens").await.json()["total"], 0);
    app.stop().await;
}

#[tokio::test]
async fn only_admins_order_and_every_order_is_audited_without_the_secret() {
    let mut bed = Bed::new();
    bed.extra = r#"
        [admin]
        tokens = [{name = "ops", role = "operator", secret = "o"}, {name = "root", role = "admin", secret = "a"}]
    "#
    .to_owned();
    let app = TestApp::spawn(from_toml(&bed.toml(), Profile::Test).unwrap()).await;
    app.until_revision(1).await;
    let post = async |secret: &str| {
        let url = format!("{}/admin/tokens", app.admin);
        let request = app
            .http
            .post(url)
            .bearer_auth(secret)
            .body(of_kind("client").to_string());
        request.send().await.unwrap()
    };
    assert_eq!(post("o").await.status(), 403);
    let made = post("a").await;
    assert_eq!(made.status(), 201);
    let made: Value = serde_json::from_slice(&made.bytes().await.unwrap()).unwrap();
    let secret = made["secret"].as_str().unwrap();
    // An admin's secret is none of a client, and the other way round.
    assert_eq!(status(&app, "a").await, 401);
    assert_eq!(post(secret).await.status(), 401);
    let url = format!("{}/admin/audit", app.admin);
    let audit = app.http.get(url).bearer_auth("o").send().await.unwrap();
    let audit = audit.text().await.unwrap();
    assert!(
        !audit.contains(secret) && audit.contains("token.create"),
        "{audit}"
    );
    let entries: Value = serde_json::from_str(&audit).unwrap();
    let results: Vec<_> = entries["entries"].as_array().unwrap().iter().collect();
    assert!(
        results
            .iter()
            .any(|entry| entry["actor"] == "root" && entry["target"] == made["id"])
    );
    assert!(
        results
            .iter()
            .any(|entry| entry["actor"] == "ops" && entry["result"] == "failed: forbidden")
    );
    app.stop().await;
}

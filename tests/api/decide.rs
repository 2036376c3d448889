//! `/v1/decide`.

use serde_json::{Value, json};

use crate::{
    questions::{ask, deciding, fill, get, post, send},
    support::{Bed, eventually},
};

/// The assignment to `everybody`.
fn everybody() -> Value {
    json!({
        "experiment_key": "everybody", "experiment_id": "exp_everybody",
        "variant_key": "treatment", "variant_id": "var_1treatment", "payload": {"color": "green"},
    })
}

fn keys(answer: &Value) -> Vec<&str> {
    let assignments = answer["assignments"].as_array().unwrap();
    assignments
        .iter()
        .map(|assignment| assignment["experiment_key"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_unit_gets_its_assignments_sorted_by_key() {
    let (_bed, app) = deciding().await;
    let told = get(
        &app,
        "/v1/decide",
        &[
            ("user_key", "u-1"),
            ("env", "production"),
            ("context", r#"{"country":"DE"}"#),
        ],
    )
    .await;
    assert_eq!(told.status, 200, "{}", told.text);
    let answer = told.json();
    assert_eq!(keys(&answer), ["everybody", "listed"]);
    assert_eq!(answer["assignments"][0], everybody());
    let listed = &answer["assignments"][1];
    assert_eq!(listed["experiment_id"], "exp_listed");
    assert_eq!(listed["payload"], Value::Null);
    let names: Vec<&String> = answer.as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        [
            "user_key",
            "environment",
            "config_version",
            "revision",
            "assignments"
        ]
    );
    assert_eq!(
        (
            &answer["user_key"],
            &answer["environment"],
            &answer["config_version"],
            &answer["revision"]
        ),
        (&json!("u-1"), &json!("production"), &json!(1), &json!(1))
    );
    assert_eq!(
        told.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(told.header("cache-control"), Some("no-store"));
    assert_eq!(told.header("x-config-revision"), Some("1"));
    assert_eq!(told.header("x-config-stale"), Some("0"));
    app.stop().await;
}

#[tokio::test]
async fn get_post_and_all_names_say_the_same() {
    let (_bed, app) = deciding().await;
    let query = [
        ("user_key", "u-1"),
        ("context", r#"{"country":"DE"}"#),
        ("experiments", "everybody,nobody"),
    ];
    let body = json!({"user_key": "u-1", "context": {"country": "DE"}, "experiments": ["everybody", "nobody"]});
    let first = get(&app, "/v1/decide", &query).await;
    assert_eq!(keys(&first.json()), ["everybody"]);
    for path in ["/v1/decide", "/api/decide", "/decide"] {
        assert_eq!(get(&app, path, &query).await.text, first.text, "{path}");
        assert_eq!(post(&app, path, &body).await.text, first.text, "{path}");
    }
    let head = ask(&app, "HEAD", "/v1/decide?user_key=u-1").await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    assert_eq!(head.header("x-config-revision"), Some("1"));
    for (method, path, allow) in [
        ("PUT", "/v1/decide", "GET, HEAD, POST"),
        ("DELETE", "/decide", "GET, HEAD, POST"),
        ("GET", "/v1/decide/batch", "POST"),
        ("PATCH", "/v1/evaluate/button", "GET, HEAD, POST"),
    ] {
        let told = ask(&app, method, path).await;
        assert_eq!(told.problem(405).0, "method_not_allowed");
        assert_eq!(told.header("allow"), Some(allow), "{method} {path}");
    }
    app.stop().await;
}

#[tokio::test]
async fn the_key_is_the_id_unless_the_context_has_one() {
    let (_bed, app) = deciding().await;
    let variant = async |query: &[(&str, &str)]| {
        let answer = get(&app, "/v1/decide", query).await.json();
        answer["assignments"][0]["variant_key"].clone()
    };
    let mut by_key = Vec::new();
    let mut by_context = Vec::new();
    for unit in 0..20 {
        let key = format!("u-{unit}");
        let context = json!({ "id": key }).to_string();
        by_key.push(variant(&[("user_key", &key), ("experiments", "listed")]).await);
        by_context.push(
            variant(&[
                ("user_key", "somebody"),
                ("experiments", "listed"),
                ("context", &context),
            ])
            .await,
        );
    }
    assert_eq!(by_key, by_context);
    assert!(by_key.contains(&json!("control")) && by_key.contains(&json!("treatment")));
    app.stop().await;
}

#[tokio::test]
async fn who_is_not_in_has_no_assignment() {
    let (_bed, app) = deciding().await;
    let named = [
        ("user_key", "u-1"),
        ("experiments", "everybody,draft,over,unknown"),
    ];
    let answer = get(&app, "/v1/decide", &named).await.json();
    assert_eq!(answer["assignments"], json!([]));
    // The rule for staff comes first: an SDK would give them its value, and no variation.
    let context = json!({"country": "DE", "staff": true}).to_string();
    let staff = [("user_key", "u-1"), ("context", context.as_str())];
    let answer = get(&app, "/v1/decide", &staff).await.json();
    assert_eq!(keys(&answer), ["listed"]);
    app.stop().await;
}

#[tokio::test]
async fn testers_force_variations_by_key_or_position() {
    let (_bed, app) = deciding().await;
    for (forced, variant, color) in [
        (json!({"everybody": "control"}), "control", "blue"),
        (json!({"everybody": 0}), "control", "blue"),
        (
            json!({"everybody": 1, "long-gone": "x"}),
            "treatment",
            "green",
        ),
    ] {
        let query = [
            ("user_key", "u-1"),
            ("experiments", "everybody"),
            ("forced", &*forced.to_string()),
        ];
        let answer = get(&app, "/v1/decide", &query).await.json();
        let assignment = &answer["assignments"][0];
        assert_eq!(assignment["variant_key"], variant, "{forced}");
        assert_eq!(assignment["payload"]["color"], color, "{forced}");
        let body = json!({"user_key": "u-1", "experiments": ["everybody"], "forced": forced});
        assert_eq!(post(&app, "/v1/decide", &body).await.json(), answer);
    }
    for forced in [
        json!({"everybody": "nope"}),
        json!({"everybody": 2}),
        json!({"everybody": null}),
    ] {
        let body = json!({"user_key": "u-1", "forced": forced});
        let told = post(&app, "/v1/decide", &body).await;
        assert_eq!(
            told.problem(400),
            ("bad_request".to_owned(), "forced.everybody".to_owned())
        );
        assert!(told.text.contains("control, treatment"), "{}", told.text);
    }
    app.stop().await;
}

#[tokio::test]
async fn the_dialect_comes_from_the_call_or_the_settings() {
    let mut bed = Bed::new();
    fill(&bed);
    let is_on = async |app: &_, query: &[(&str, &str)]| {
        let mut query = query.to_vec();
        query.push(("context", r#"{"age":"5"}"#));
        get(app, "/v1/evaluate/coerced", &query).await.json()["value"].clone()
    };
    let app = bed.start_loaded().await;
    assert_eq!(is_on(&app, &[]).await, json!(false));
    assert_eq!(is_on(&app, &[("dialect", "legacy")]).await, json!(true));
    assert_eq!(is_on(&app, &[("dialect", "strict")]).await, json!(false));
    app.stop().await;
    bed.source_extra = "dialect = \"legacy\"".to_owned();
    let app = bed.start_loaded().await;
    assert_eq!(is_on(&app, &[]).await, json!(true));
    assert_eq!(is_on(&app, &[("dialect", "strict")]).await, json!(false));
    app.stop().await;
}

#[tokio::test]
async fn bad_input_is_400_with_the_field_named() {
    let (_bed, app) = deciding().await;
    for (query, field) in [
        ("", "user_key"),
        ("user_key=", "user_key"),
        ("user_key=a&user_key=b", "user_key"),
        ("user_key=%ff", "user_key"),
        ("user_key=a&context=[]", "context"),
        ("user_key=a&context={", "context"),
        ("user_key=a&context=7", "context"),
        ("user_key=a&explain=perhaps", "explain"),
        ("user_key=a&dialect=loose", "dialect"),
        ("user_key=a&forced=3", "forced"),
        ("user_key=a&contexts={}", "contexts"),
    ] {
        let told = ask(
            &app,
            "GET",
            &format!("/v1/decide?{}", query.replace('{', "%7B")),
        )
        .await;
        assert_eq!(
            told.problem(400),
            ("bad_request".to_owned(), field.to_owned()),
            "{query}"
        );
    }
    app.stop().await;
}

#[tokio::test]
async fn a_bad_body_is_400_with_the_member_named() {
    let (_bed, app) = deciding().await;
    for (body, field) in [
        (json!({}), "user_key"),
        (json!({"user_key": 7}), "user_key"),
        (json!({"user_key": ""}), "user_key"),
        (json!({"user_key": "a", "context": []}), "context"),
        (json!({"user_key": "a", "context": "{}"}), "context"),
        (json!({"user_key": "a", "env": 1}), "env"),
        (
            json!({"user_key": "a", "experiments": "a,b"}),
            "experiments",
        ),
        (
            json!({"user_key": "a", "experiments": ["a", 1]}),
            "experiments[1]",
        ),
        (json!({"user_key": "a", "explain": "true"}), "explain"),
        (json!({"user_key": "a", "forced": []}), "forced"),
        (json!({"user_key": "a", "dialect": "Strict"}), "dialect"),
        (json!({"user_key": "a", "userKey": "b"}), "userKey"),
        (json!(["user_key"]), "body"),
    ] {
        let told = post(&app, "/v1/decide", &body).await;
        assert_eq!(
            told.problem(400),
            ("bad_request".to_owned(), field.to_owned()),
            "{body}"
        );
    }
    for (path, body) in [
        ("/v1/decide", "{"),
        ("/v1/decide", ""),
        ("/v1/decide/batch", "nonsense"),
    ] {
        let told = send(&app, "POST", path, &[], Some(body.to_owned())).await;
        assert_eq!(told.problem(400).1, "body", "{body}");
    }
    let told = send(
        &app,
        "POST",
        "/v1/decide?env=production",
        &[],
        Some("{}".to_owned()),
    )
    .await;
    assert_eq!(told.problem(400).1, "query");
    app.stop().await;
}

#[tokio::test]
async fn unknown_environments_are_404_and_unloaded_ones_503() {
    let mut bed = Bed::new();
    bed.source_extra = "poll.enabled = false".to_owned();
    let app = bed.start().await;
    for path in ["/v1/decide", "/v1/evaluate/flag"] {
        let told = get(&app, path, &[("user_key", "a"), ("env", "nowhere")]).await;
        assert_eq!(told.problem(404).0, "unknown_environment");
        assert_eq!(told.json()["known"], json!(["production"]));
        let told = get(&app, path, &[("user_key", "a")]).await;
        assert_eq!(told.problem(503).0, "not_loaded");
        assert_eq!(told.header("retry-after"), Some("5"));
    }
    app.stop().await;
}

#[tokio::test]
async fn pages_of_other_origins_may_ask() {
    let (_bed, app) = deciding().await;
    let origin = ("origin", "https://shop.example");
    let preflight = send(
        &app,
        "OPTIONS",
        "/v1/decide",
        &[
            origin,
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type"),
        ],
        None,
    )
    .await;
    assert_eq!(preflight.status, 200);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    let methods = preflight.header("access-control-allow-methods").unwrap();
    assert!(methods.contains("POST"), "{methods}");
    assert_eq!(
        preflight.header("access-control-allow-headers"),
        Some("content-type")
    );
    let body = json!({"user_key": "a"}).to_string();
    let told = send(&app, "POST", "/v1/decide", &[origin], Some(body)).await;
    assert_eq!(told.header("access-control-allow-origin"), Some("*"));
    let told = send(&app, "POST", "/v1/decide", &[origin], Some("{}".to_owned())).await;
    assert_eq!(told.status, 400);
    assert_eq!(told.header("access-control-allow-origin"), Some("*"));
    app.stop().await;
}

#[tokio::test]
async fn a_new_revision_decides_anew_and_nobody_compiles_for_nobody() {
    use stitchd::{actors::store::GetSnapshot, eval::Dialect};
    let (bed, app) = deciding().await;
    let snapshot = async || {
        let question = GetSnapshot {
            environment: "production".into(),
        };
        let limit = std::time::Duration::from_secs(10);
        app.handles
            .store
            .ask_again(question, limit)
            .await
            .unwrap()
            .unwrap()
    };
    let first = snapshot().await;
    assert!(
        Dialect::ALL
            .iter()
            .all(|dialect| first.evaluator(*dialect).is_none())
    );
    get(&app, "/v1/decide", &[("user_key", "a")]).await;
    assert!(first.evaluator(Dialect::Strict).is_some());
    assert!(first.evaluator(Dialect::Legacy).is_none());

    bed.upstream
        .set_feature("greeting", json!({"defaultValue": "servus"}));
    assert_eq!(app.poll().await["revision"], 2);
    let second = snapshot().await;
    assert_eq!(second.revision, 2);
    assert!(
        second.evaluator(Dialect::Strict).is_some(),
        "it is compiled before it is published"
    );
    assert!(second.evaluator(Dialect::Legacy).is_none());
    let greeting = eventually("the worker sees the revision", async || {
        let answer = get(&app, "/v1/evaluate/greeting", &[]).await.json();
        (answer["revision"] == 2).then_some(answer)
    })
    .await;
    assert_eq!(greeting["value"], "servus");
    app.stop().await;
}

#[tokio::test]
async fn a_restart_decides_the_same_before_anything_is_polled() {
    let (bed, app) = deciding().await;
    let query = [("user_key", "u-7"), ("context", r#"{"country":"DE"}"#)];
    let before = get(&app, "/v1/decide", &query).await.text;
    app.stop().await;
    let mut settings = bed.settings();
    settings.sources[0].poll.enabled = false;
    let app = crate::support::TestApp::spawn(settings).await;
    assert_eq!(get(&app, "/v1/decide", &query).await.text, before);
    app.stop().await;
}

#[tokio::test]
async fn many_first_callers_at_once_are_all_answered() {
    let (_bed, app) = deciding().await;
    let unit = |number: usize| format!("/v1/decide?user_key=u-{}", number % 7);
    let paths: Vec<String> = (0..60).map(unit).collect();
    let asked = paths.iter().map(|path| ask(&app, "GET", path));
    let answers = futures_util::future::join_all(asked).await;
    for (at, answer) in answers.iter().enumerate() {
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.text, answers[at % 7].text);
    }
    app.stop().await;
}

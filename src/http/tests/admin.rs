//! The admin plane: who may do what, and what is answered while every actor is down.

use actix_web::{http::Method, rt, test as at};
use serde_json::json;

use super::{Answer, Plane, Rig, settings, snapshot};
use crate::{
    http::{ROUTES, Route},
    settings::{AdminToken, Role},
};

const LOOPBACK: &str = "127.0.0.1:40000";

fn request(method: &str, path: &str) -> at::TestRequest {
    let path = path
        .replace("{id}", "off")
        .replace("{environment}", "production")
        .replace("{revision}", "1")
        .replace("{other}", "2");
    at::TestRequest::default()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(&path)
}

fn local(method: &str, path: &str) -> at::TestRequest {
    request(method, path)
        .peer_addr(LOOPBACK.parse().unwrap())
        .insert_header(("host", "localhost:8081"))
}

fn with_tokens() -> Rig {
    let token = |name: &str, role| AdminToken {
        name: name.to_owned(),
        role,
        secret: Some(format!("{name}-secret").into()),
        secret_file: None,
    };
    let mut settings = settings();
    settings.admin.tokens = vec![
        token("viewer", Role::Viewer),
        token("operator", Role::Operator),
        token("admin", Role::Admin),
    ];
    // Nothing waits for a poller that nobody runs.
    settings.sources.retain(|source| !source.enabled);
    Rig::new(&settings, Some(snapshot("production", 7)))
}

fn admin_routes() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().filter(|route| route.plane == Plane::Admin)
}

async fn send(rig: &Rig, request: at::TestRequest) -> Answer {
    rig.send(Plane::Admin, request).await
}

#[rt::test]
async fn each_route_lets_in_exactly_the_roles_of_the_table() {
    let rig = with_tokens();
    let callers = [
        (None, None),
        (Some("Bearer wrong"), None),
        (Some("Bearer "), None),
        (Some("Basic viewer-secret"), None),
        (Some("Bearer viewer-secret"), Some(Role::Viewer)),
        (Some("bearer operator-secret"), Some(Role::Operator)),
        (Some("Bearer admin-secret"), Some(Role::Admin)),
    ];
    // At once: nobody is there to answer those who are let in, and each of them waits for its time.
    let cases = admin_routes().flat_map(|route| callers.map(|caller| (route, caller)));
    let answers =
        cases.map(|(route, (authorization, role))| admits(&rig, route, authorization, role));
    futures_util::future::join_all(answers).await;
}

async fn admits(rig: &Rig, route: &Route, authorization: Option<&str>, role: Option<Role>) {
    let mut request = local(route.methods[0], route.path);
    if let Some(authorization) = authorization {
        request = request.insert_header(("authorization", authorization));
    }
    let answer = send(rig, request).await;
    assert_eq!(
        answer.header("cache-control"),
        Some("no-store"),
        "{}",
        route.path
    );
    let what = format!("{} {authorization:?}: {}", route.path, answer.status);
    match (route.role, role) {
        (None, _) => assert!(answer.status != 401 && answer.status != 403, "{what}"),
        (Some(_), None) => {
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (401, "unauthorized"),
                "{what}"
            );
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
        (Some(needed), Some(role)) if role < needed => {
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (403, "forbidden"),
                "{what}"
            );
        }
        (Some(_), Some(_)) => {
            assert!(answer.status != 401 && answer.status != 403, "{what}");
        }
    }
}

#[test]
fn only_health_and_metrics_answer_anybody_and_only_reads_change_nothing() {
    let open: Vec<_> = admin_routes()
        .filter(|route| route.role.is_none())
        .map(|route| route.path)
        .collect();
    assert_eq!(open, ["/livez", "/readyz", "/metrics"]);
    for route in admin_routes() {
        let is_read = route.methods.contains(&"GET");
        assert_eq!(route.action.is_none(), is_read, "{}", route.path);
        assert!(
            is_read || route.role >= Some(Role::Operator),
            "{}",
            route.path
        );
    }
}

#[rt::test]
async fn without_tokens_only_this_machine_gets_in() {
    let rig = Rig::loaded();
    let check =
        async |peer: Option<&str>, host: Option<&str>, origin: Option<&str>, expected: u16| {
            let mut request = request("GET", "/admin/status");
            if let Some(peer) = peer {
                request = request.peer_addr(peer.parse().unwrap());
            }
            if let Some(host) = host {
                request = request.insert_header(("host", host));
            }
            if let Some(origin) = origin {
                request = request.insert_header(("origin", origin));
            }
            let answer = send(&rig, request).await;
            assert_eq!(answer.status, expected, "{peer:?} {host:?} {origin:?}");
            if expected == 403 {
                assert_eq!(answer.problem(), "forbidden");
            }
        };
    let (peer, host) = (Some(LOOPBACK), Some("localhost:8081"));
    check(peer, host, None, 200).await;
    check(Some("[::1]:1"), Some("[::1]:8081"), None, 200).await;
    check(Some("[::ffff:127.0.0.1]:1"), Some("127.0.0.1"), None, 200).await;
    check(Some("10.1.2.3:1"), host, None, 403).await;
    check(None, host, None, 403).await;
    check(peer, Some("rebound.example"), None, 403).await;
    check(peer, Some("rebound.example:8081"), None, 403).await;
    check(peer, None, None, 403).await;
    check(peer, Some(""), None, 403).await;
    check(peer, host, Some("http://localhost:8081"), 200).await;
    check(peer, host, Some("http://127.0.0.1:3000"), 200).await;
    check(peer, host, Some("https://evil.example"), 403).await;
    check(peer, host, Some("http://localhost.evil.example"), 403).await;
    check(peer, host, Some("null"), 403).await;
    // Health stays open to all.
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(
            send(
                &rig,
                request("GET", path).peer_addr("10.1.2.3:1".parse().unwrap())
            )
            .await
            .status,
            200
        );
    }
}

#[rt::test]
async fn tokens_without_a_usable_secret_let_nobody_in() {
    let mut settings = settings();
    let secret = Some(String::new().into());
    settings.admin.tokens = vec![AdminToken {
        name: "empty".to_owned(),
        role: Role::Admin,
        secret,
        secret_file: None,
    }];
    let rig = Rig::new(&settings, None);
    assert_eq!(send(&rig, local("GET", "/admin/status")).await.status, 401);
    let request = local("GET", "/admin/status").insert_header(("authorization", "Bearer "));
    assert_eq!(send(&rig, request).await.status, 401);
}

#[rt::test]
async fn status_answers_while_every_actor_is_down() {
    let rig = Rig::loaded();
    rig.shared
        .handles
        .board
        .source("main")
        .unwrap()
        .set_last_success_ms(0);
    let answer = send(&rig, local("GET", "/admin/status")).await;
    assert_eq!(answer.status, 200);
    let status = answer.json();
    let main = &status["sources"]["main"];
    assert_eq!(main["state"], json!(null));
    assert_eq!(main["last_success"], "1970-01-01T00:00:00.000Z");
    assert_eq!(main["last_error"], "actor `poller` is restarting");
    assert!(main["age_seconds"].as_f64().unwrap() > 1e9);
    assert_eq!(status["sources"]["off"]["state"], "disabled");
    assert_eq!(status["sources"]["off"]["age_seconds"], json!(null));
    let environment = json!({
        "revision": 7, "hash": "cafe", "features": 3, "experiments": 1,
        "issues": null, "held": null, "pinned": null, "overrides": null, "durable": null,
    });
    assert_eq!(status["environments"]["production"], environment);
    let store =
        json!({ "up": false, "restarts": 0, "degraded": false, "causes": {}, "last_exit": null });
    assert_eq!(status["actors"]["store"], store);
    assert_eq!(
        status["database"],
        json!({ "up": null, "error": "actor `store` is restarting" })
    );
    assert_eq!(status["consumers"], json!([]));
    assert_eq!(status["queues"]["streams"], 0);
}

#[rt::test]
async fn unknown_names_are_404_with_the_known_ones() {
    let rig = Rig::loaded();
    let answer = send(&rig, local("POST", "/admin/sources/nope/poll")).await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (404, "unknown_source")
    );
    assert_eq!(answer.json()["known"], json!(["main", "off"]));
    let answer = send(&rig, local("GET", "/admin/environments/nope/issues")).await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (404, "unknown_environment")
    );
    assert_eq!(answer.json()["known"], json!(["production"]));
    let answer = send(&rig, local("GET", "/admin/nope")).await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (404, "unknown_path")
    );
    let answer = send(&rig, local("GET", "/admin/poll")).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
}

#[rt::test]
async fn a_disabled_source_is_a_conflict_alone_and_listed_among_all() {
    let rig = Rig::loaded();
    for verb in ["pause", "resume", "poll"] {
        let answer = send(&rig, local("POST", &format!("/admin/sources/off/{verb}"))).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (409, "source_disabled"),
            "{verb}"
        );
    }
    let answer = send(&rig, local("POST", "/admin/pause")).await;
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (503, "partly_unavailable")
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    let main = json!({ "source": "main", "error": "unavailable", "detail": "actor `poller` is restarting" });
    assert_eq!(
        answer.json()["results"],
        json!([main, { "source": "off", "state": "disabled" }])
    );
}

#[rt::test]
async fn an_actor_that_is_down_is_503_with_retry_after() {
    let rig = Rig::loaded();
    for (method, path) in [
        ("POST", "/admin/sources/main/pause"),
        ("GET", "/admin/environments/production/issues"),
        ("GET", "/admin/audit"),
    ] {
        let answer = send(&rig, local(method, path)).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (503, "unavailable"),
            "{path}"
        );
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
}

#[rt::test]
async fn bodies_and_parameters_that_cannot_be_read_name_the_field() {
    let rig = Rig::loaded();
    let check = async |body: &str, status: u16, code: &str, field: Option<&str>| {
        let request = local("POST", "/admin/sources/off/pause").set_payload(body.to_owned());
        let answer = send(&rig, request).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (status, code),
            "{body}"
        );
        assert_eq!(answer.json()["field"].as_str(), field, "{body}");
    };
    check("", 409, "source_disabled", None).await;
    check("  ", 409, "source_disabled", None).await;
    check(
        r#"{"reason":"deploy","more":1}"#,
        409,
        "source_disabled",
        None,
    )
    .await;
    check(r#"{"reason":null}"#, 409, "source_disabled", None).await;
    check(r#"{"reason":7}"#, 400, "bad_request", Some("reason")).await;
    check("{", 400, "bad_request", Some("body")).await;
    check("[1]", 400, "bad_request", Some("body")).await;
    check("{} {}", 400, "bad_request", Some("body")).await;
    check(
        &format!(r#"{{"reason":"{}"}}"#, "x".repeat(100)),
        413,
        "body_too_large",
        None,
    )
    .await;
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=many", "limit"),
        ("before=x", "before"),
    ] {
        let answer = send(&rig, local("GET", &format!("/admin/audit?{query}"))).await;
        assert_eq!(
            (answer.status, answer.json()["field"].as_str()),
            (400, Some(field)),
            "{query}"
        );
    }
}

#[rt::test]
async fn metrics_are_openmetrics_and_never_show_an_age_that_is_not_known() {
    let rig = Rig::loaded();
    let answer = send(&rig, request("GET", "/metrics")).await;
    assert_eq!(
        answer.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(text.ends_with("# EOF\n"));
    assert!(!text.contains("stitchd_source_age_seconds{"));
    rig.shared
        .handles
        .board
        .source("main")
        .unwrap()
        .set_last_success_ms(0);
    let answer = send(&rig, request("GET", "/metrics")).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(text.contains("stitchd_source_age_seconds{source=\"main\"}"));
    assert!(text.contains(
        "stitchd_http_requests_total{plane=\"admin\",route=\"/metrics\",status=\"2xx\"} 1"
    ));
}

//! From the route table to actix services: role checks, counters, `Allow`, and who may read from a browser.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use actix_cors::Cors;
use actix_web::{
    body::BoxBody,
    dev::ServiceRequest,
    guard::fn_guard,
    http::{Method, Uri},
    middleware::{Next, from_fn},
    web,
};

use super::{
    Plane, ROUTES, Route, auth,
    error::ApiError,
    observe::{RouteCounters, observe},
    state::{HttpState, Shared},
};

/// Configures an `App` for the data plane; wrap it with [`cors`] too.
pub fn data_app(state: web::Data<HttpState>) -> impl FnOnce(&mut web::ServiceConfig) {
    move |config| configure(config, Plane::Data, state, ROUTES)
}

/// Configures an `App` as [`data_app`] does, for other routes: same routing, same middleware. For benchmarks.
pub fn baseline_app(
    state: web::Data<HttpState>,
    routes: &'static [Route],
) -> impl FnOnce(&mut web::ServiceConfig) {
    move |config| configure(config, Plane::Data, state, routes)
}

/// Configures an `App` for the admin plane.
pub fn admin_app(state: web::Data<HttpState>) -> impl FnOnce(&mut web::ServiceConfig) {
    move |config| configure(config, Plane::Admin, state, ROUTES)
}

/// Builds the services of one plane from a table; public so that benchmarks can add routes of their own to it.
pub fn configure(
    config: &mut web::ServiceConfig,
    plane: Plane,
    state: web::Data<HttpState>,
    table: &'static [Route],
) {
    let shared = Arc::clone(&state.shared);
    config.app_data(state);
    let mut paths: BTreeMap<&str, Vec<&'static Route>> = BTreeMap::new();
    let mut order = Vec::new();
    for route in table.iter().filter(|route| route.plane == plane) {
        let entries = paths.entry(route.path).or_default();
        if entries.is_empty() {
            order.push(route.path);
        }
        entries.push(route);
    }
    for path in order {
        let entries = &paths[path];
        let counters = RouteCounters::new(&shared, plane, path);
        let allow = entries
            .iter()
            .flat_map(|route| route.methods)
            .copied()
            .collect::<Vec<_>>()
            .join(", ");
        let resource = entries.iter().fold(web::resource(path), |resource, route| {
            resource.route(service(route, Rc::clone(&counters)))
        });
        let refuse = web::route().to(move || {
            let allow = allow.clone();
            async move { Err::<&str, _>(ApiError::MethodNotAllowed(allow)) }
        });
        config.service(resource.default_service(observed(refuse, counters)));
    }
    let unknown = web::route().to(async || Err::<&str, _>(ApiError::UnknownPath));
    config.default_service(observed(
        unknown,
        RouteCounters::new(&shared, plane, "unmatched"),
    ));
}

/// One entry's handler behind its role check and the common middleware.
fn service(route: &'static Route, counters: Rc<RouteCounters>) -> actix_web::Route {
    let mut handler = (route.handler)();
    if let Some(role) = route.role {
        let check = move |request: ServiceRequest, next: Next<BoxBody>| {
            auth::require(role, route.action, request, next)
        };
        handler = handler.wrap(from_fn(check));
    }
    observed(handler, counters).guard(fn_guard(|context| {
        is_one_of(&context.head().method, route.methods)
    }))
}

fn is_one_of(method: &Method, methods: &[&str]) -> bool {
    methods.contains(&method.as_str())
}

fn observed(route: actix_web::Route, counters: Rc<RouteCounters>) -> actix_web::Route {
    route.wrap(from_fn(
        move |request: ServiceRequest, next: Next<BoxBody>| {
            observe(Rc::clone(&counters), request, next)
        },
    ))
}

/// First parts of the paths of protocols whose clients join a base URL and a path without looking for slashes.
const JOINED_BLINDLY: [&str; 2] = ["/api/frontend", "/ofrep/v1/"];

/// Takes superfluous slashes out of such paths, before they are routed.
pub fn tidy_path(request: &mut ServiceRequest) {
    let path = request.path();
    if !path.contains("//") && !path.ends_with('/') {
        return;
    }
    let parts = path.split('/').filter(|part| !part.is_empty());
    let tidy = parts.fold(String::new(), |tidy, part| tidy + "/" + part);
    if !JOINED_BLINDLY.iter().any(|begins| tidy.starts_with(begins)) {
        return;
    }
    let mut uri = request.head().uri.clone().into_parts();
    let query = request.query_string();
    let tidy = if query.is_empty() {
        tidy
    } else {
        format!("{tidy}?{query}")
    };
    // A part of a valid path is one.
    uri.path_and_query = tidy.parse().ok();
    if let Ok(uri) = Uri::from_parts(uri) {
        request.match_info_mut().get_mut().update(&uri);
        request.head_mut().uri = uri;
    }
}

/// Seconds a browser may remember a preflight answer.
const PREFLIGHT_SECONDS: usize = 86_400;

/// Lets browsers read the data plane from the origins of the settings; never with credentials.
///
/// `Vary` is left to the handlers: answers are the same for every origin, and with `*` caches need not tell them apart.
pub fn cors(shared: &Shared) -> Cors {
    let origins = &shared.http.cors_origins;
    let exposed = [
        "etag",
        "retry-after",
        "x-config-revision",
        "x-config-published-at",
        "x-config-checked-at",
        "x-config-stale",
        "x-request-id",
        "x-sse-support",
        "x-unrecoverable",
    ];
    let cors = Cors::default()
        .allowed_methods(["GET", "HEAD", "POST", "OPTIONS"])
        .allow_any_header()
        .expose_headers(exposed)
        .max_age(PREFLIGHT_SECONDS)
        .disable_vary_header();
    if origins.iter().any(|origin| origin == "*") {
        return cors.allow_any_origin().send_wildcard();
    }
    origins
        .iter()
        .fold(cors, |cors, origin| cors.allowed_origin(origin))
}

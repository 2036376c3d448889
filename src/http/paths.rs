//! Under which paths a document is answered. The one place that knows: probes ask these, caches are purged of these.

use url::Url;

use crate::{
    model::snapshot::{SNAPSHOT_DOCUMENT, connection_of},
    views::{ANALYTICS, MEDIAWIKI, VARNISH},
};

/// Path of the consumers' documents.
const EXPERIMENTS: &str = "/api/v1/experiments";

/// The queries that ask for each of them, as the README spells them; `environment` comes last.
const QUERIES: &[(&str, &str)] = &[
    (MEDIAWIKI, ""),
    (MEDIAWIKI, "authority=mediawiki&format=config"),
    (VARNISH, "authority=varnish&format=config"),
    (ANALYTICS, "format=analytics"),
];

/// Every path, query included, that a document of an environment is answered under; none for one that nobody may read.
///
/// `is_default`: the environment is the one that is meant where a URL names none.
pub fn paths_of(document: &str, environment: &str, is_default: bool) -> Vec<String> {
    if document == SNAPSHOT_DOCUMENT {
        return vec![format!("/v1/{SNAPSHOT_DOCUMENT}/{environment}")];
    }
    if let Some((client_key, is_remote_eval)) = connection_of(document) {
        let path = || format!("/api/features/{}", segment(client_key));
        return (!is_remote_eval).then(path).into_iter().collect();
    }
    let mut paths = Vec::new();
    for (_, query) in QUERIES.iter().filter(|(name, _)| *name == document) {
        let and = if query.is_empty() { "" } else { "&" };
        paths.push(format!(
            "{EXPERIMENTS}?{query}{and}environment={environment}"
        ));
        if is_default {
            let mark = if query.is_empty() { "" } else { "?" };
            paths.push(format!("{EXPERIMENTS}{mark}{query}"));
        }
    }
    paths
}

/// [`paths_of`] every consumer's document.
pub(super) fn experiments(environment: &str) -> Vec<String> {
    [MEDIAWIKI, VARNISH, ANALYTICS]
        .iter()
        .flat_map(|document| paths_of(document, environment, false))
        .collect()
}

/// A segment of a path, percent-encoded where it must be.
fn segment(text: &str) -> String {
    let mut url = Url::parse("http://a").expect("this is a URL");
    url.path_segments_mut()
        .expect("an http URL has a path")
        .push(text);
    url.path().trim_start_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::snapshot::connection_document;

    #[test]
    fn each_document_has_its_spellings() {
        for (document, is_default, expected) in [
            ("snapshot", true, &["/v1/snapshot/e"][..]),
            (
                "mediawiki",
                true,
                &[
                    "/api/v1/experiments?environment=e",
                    "/api/v1/experiments",
                    "/api/v1/experiments?authority=mediawiki&format=config&environment=e",
                    "/api/v1/experiments?authority=mediawiki&format=config",
                ],
            ),
            (
                "analytics",
                false,
                &["/api/v1/experiments?format=analytics&environment=e"],
            ),
            ("features/sdk-1", true, &["/api/features/sdk-1"]),
            ("features/a/b?c", true, &["/api/features/a%2Fb%3Fc"]),
            ("eval/sdk-1", true, &[]),
            ("something else", true, &[]),
        ] {
            assert_eq!(paths_of(document, "e", is_default), expected, "{document}");
        }
        assert_eq!(
            paths_of(&connection_document("sdk-1", false), "e", false).len(),
            1
        );
    }
}

//! Auto experiments: those of pages rather than features, redirects among them.

use serde_json::Value;
use url::Url;

use super::{
    definition::Experiment,
    feature::Run,
    js,
    result::{ExperimentResult, ExperimentView, Observer},
};

/// An experiment that runs by itself on the pages it is for.
#[derive(Clone, Debug)]
pub(super) struct AutoExperiment {
    pub(super) experiment: Experiment,
    kind: Kind,
    /// Runs only when asked for by name.
    is_manual: bool,
    keeps_query: bool,
}

/// What an auto experiment changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Redirect,
    Visual,
    Unknown,
}

/// Where a user is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The experiment that says so.
    pub experiment: String,
    /// The address as defined.
    pub url: String,
    /// The address with what it keeps of the page's query string.
    pub url_with_params: String,
}

/// What auto experiments make of a page.
#[derive(Clone, Debug, Default)]
pub struct AutoOutcome<'c> {
    /// The experiments that ran, in order.
    pub results: Vec<(ExperimentView<'c>, ExperimentResult<'c>)>,
    /// Where the user is sent; experiments behind that one did not run.
    pub redirect: Option<Redirect>,
}

impl AutoExperiment {
    pub(super) fn new(experiment: Experiment) -> Self {
        let has = |name: &str| js::truthy_member(&experiment.source, name).is_some();
        let members = |arm: &super::definition::Arm| arm.value.as_object().cloned();
        let any = |is_it: &dyn Fn(&serde_json::Map<String, Value>) -> bool| {
            experiment
                .arms
                .iter()
                .filter_map(members)
                .any(|value| is_it(&value))
        };
        let kind = if has("urlPatterns") && any(&|value| value.contains_key("urlRedirect")) {
            Kind::Redirect
        } else if any(&|value| {
            js::truthy_member(value, "domMutations").is_some()
                || value.contains_key("js")
                || value.contains_key("css")
        }) {
            Kind::Visual
        } else {
            Kind::Unknown
        };
        Self {
            kind,
            is_manual: has("manual"),
            keeps_query: has("persistQueryString"),
            experiment,
        }
    }

    /// Whether it cannot be run: of no known kind, or an address does not parse.
    fn is_blocked(&self, page: &str) -> bool {
        match self.kind {
            Kind::Visual => false,
            Kind::Unknown => true,
            Kind::Redirect => {
                let is_broken =
                    |value: &Value| redirect_url(value).is_some_and(|url| Url::parse(url).is_err());
                Url::parse(page).is_err()
                    || self.experiment.arms.iter().any(|arm| is_broken(&arm.value))
            }
        }
    }

    fn redirect(&self, page: &str, value: &Value) -> Option<Redirect> {
        let url = redirect_url(value)?;
        let with_params = if self.keeps_query {
            merge_query(page, url)
        } else {
            url.to_owned()
        };
        let leads_back = self.experiment.pages.as_ref()?.matches(&with_params);
        (!leads_back).then(|| Redirect {
            experiment: self.experiment.key.as_ref().to_owned(),
            url: url.to_owned(),
            url_with_params: with_params,
        })
    }
}

impl<'c, O: Observer<'c>> Run<'c, O> {
    /// Runs auto experiments in order, up to the first redirect; manual ones only where their key is in `triggered`.
    pub(super) fn auto_experiments(
        &mut self,
        experiments: &'c [AutoExperiment],
        triggered: &[&str],
    ) -> AutoOutcome<'c> {
        let page = self.context.url.unwrap_or_default();
        let mut outcome = AutoOutcome::default();
        for auto in experiments {
            let is_due = !auto.is_manual || triggered.contains(&&*auto.experiment.key);
            if !is_due || auto.is_blocked(page) {
                continue;
            }
            let (view, result) = self.experiment(&auto.experiment, None, None);
            self.observer.experiment(view, &result);
            let ends = result.in_experiment && auto.kind == Kind::Redirect;
            if ends {
                outcome.redirect = auto.redirect(page, result.value);
            }
            outcome.results.push((view, result));
            if ends {
                break;
            }
        }
        outcome
    }
}

fn redirect_url(value: &Value) -> Option<&str> {
    value
        .get("urlRedirect")?
        .as_str()
        .filter(|url| !url.is_empty())
}

/// The new address with those query parameters of the old one that it does not have.
fn merge_query(old: &str, new: &str) -> String {
    let (Ok(page), Ok(mut url)) = (Url::parse(old), Url::parse(new)) else {
        return new.to_owned();
    };
    let own: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let mut merged = own.clone();
    for (name, value) in page.query_pairs().into_owned() {
        if !merged.iter().any(|(known, _)| *known == name) {
            merged.push((name, value));
        }
    }
    if merged.len() > own.len() {
        url.query_pairs_mut().clear().extend_pairs(merged);
    }
    url.into()
}

//! Where another implementation is known to say something else, and why ours stays as it is.

use serde_json::Value;

/// What was compared.
pub(crate) struct Place<'p> {
    /// `feature alpha`, `experiment "exp-1"`, `answer`.
    pub(crate) what: String,
    /// `{"payload", "features", "inline", "users"}`
    pub(crate) case: &'p Value,
    pub(crate) user: &'p Value,
    /// The feature, the experiment, or the whole payload.
    pub(crate) definition: &'p Value,
}

/// A known disagreement.
pub(crate) struct Exception {
    pub(crate) name: &'static str,
    pub(crate) applies: fn(&Place<'_>) -> bool,
}

/// Of GrowthBook's SDK for JavaScript 1.8.0.
pub(crate) const JAVASCRIPT: &[Exception] = &[];

/// Of npm `@growthbook/proxy-eval` 1.1.2.
pub(crate) const PROXY: &[Exception] = &[
    // It runs auto experiments before it has read what was given before, and so exposes units to variations that they
    // are then not shown. Ours reads first.
    Exception {
        name: "auto experiments run before sticky buckets are read",
        applies: |place| {
            place.user.get("sticky").is_some()
                && place.definition["experiments"]
                    .as_array()
                    .is_some_and(|experiments| !experiments.is_empty())
        },
    },
];

/// Of GrowthBook's SDK for Python 4.0.0.
pub(crate) const PYTHON: &[Exception] = &[
    // It checks a rule's condition before anything that is forced or remembered; the specification checks it after.
    Exception {
        name: "a rule's condition comes before what is forced and remembered",
        applies: |place| {
            let user = place.user;
            let is_special = user.get("forcedVariations").is_some()
                || user.get("sticky").is_some()
                || user["url"].as_str().is_some_and(|url| url.contains('?'));
            is_special
                && rules(place).any(|rule| is_experiment(rule) && rule.get("condition").is_some())
        },
    },
    // It uses the fallback attribute of rollouts always; the specification only where buckets are sticky.
    Exception {
        name: "rollouts fall back without sticky buckets",
        applies: |place| {
            let falls_back = |rule: &Value| {
                let is_rollout = rule.get("coverage").is_some() || rule.get("range").is_some();
                rule.get("force").is_some() && is_rollout && rule.get("fallbackAttribute").is_some()
            };
            place.user.get("sticky").is_none() && rules(place).any(falls_back)
        },
    },
    // Of a bandit it tells weights that it made fit, and none beside ranges; the specification tells those of the
    // definition.
    Exception {
        name: "a bandit's weights do not fit the variations",
        applies: |place| {
            rules(place).any(|rule| {
                let variations = rule["contextualVariations"].as_array().map(Vec::len);
                let own: Option<f64> = rule["weights"]
                    .as_array()
                    .map(|weights| weights.iter().filter_map(Value::as_f64).sum());
                let is_odd = own.is_some_and(|sum| !(0.99..=1.01).contains(&sum));
                rule.get("contextualBanditRef").is_some()
                    && (is_odd || variations != Some(2) || rule.get("ranges").is_some())
            })
        },
    },
    // Without a fallback attribute it asks for the own unit's sticky bucket alone; the specification asks for that of
    // `id` too.
    Exception {
        name: "sticky buckets of `id` where no fallback is named",
        applies: |place| {
            let asks_id = |experiment: &Value| {
                let attribute = experiment.get("hashAttribute").and_then(Value::as_str);
                attribute.is_some_and(|name| name != "id")
                    && experiment.get("fallbackAttribute").is_none()
            };
            place.user.get("sticky").is_some()
                && (asks_id(place.definition) || rules(place).any(asks_id))
        },
    },
    // It writes what it finds for a fallback into the document of the unit, where the next experiment finds it.
    Exception {
        name: "sticky buckets of a fallback become the unit's",
        applies: |place| {
            let experiments = rules(place).filter(|rule| is_experiment(rule)).count();
            let experiments =
                experiments + usize::from(place.definition.get("variations").is_some());
            let falls_back = |rule: &Value| rule.get("fallbackAttribute").is_some();
            place.user.get("sticky").is_some()
                && experiments > 1
                && (falls_back(place.definition) || rules(place).any(falls_back))
        },
    },
];

fn is_experiment(rule: &Value) -> bool {
    rule.get("force").is_none()
        && (rule.get("variations").is_some() || rule.get("contextualVariations").is_some())
}

/// The rules of a feature and of every feature that it, or an experiment, depends on.
fn rules<'p>(place: &Place<'p>) -> impl Iterator<Item = &'p Value> {
    let features = &place.case["payload"]["features"];
    let mut pending = vec![place.definition];
    let mut seen: Vec<&Value> = Vec::new();
    while let Some(definition) = pending.pop() {
        if seen.iter().any(|known| std::ptr::eq(*known, definition)) {
            continue;
        }
        seen.push(definition);
        let rules = definition["rules"].as_array().into_iter().flatten();
        for holder in rules.chain([definition]) {
            let parents = holder["parentConditions"].as_array().into_iter().flatten();
            pending.extend(parents.filter_map(|parent| features.get(parent["id"].as_str()?)));
        }
    }
    seen.into_iter()
        .flat_map(|definition| definition["rules"].as_array().into_iter().flatten())
}

//! Payloads for users who are partly known: what cannot concern them is left out.

use serde_json::{Map, Value, json};

use super::{js, prune::Pruner, references::References, set::Set};

/// What to leave out of a payload.
#[derive(Clone, Debug, Default)]
pub struct ReduceOptions {
    /// What is known of the user.
    known: Map<String, Value>,
    include: Filters,
    exclude: Filters,
    /// Whether prerequisites have to pass the filters too; holdouts never have to.
    filters_prerequisites: bool,
}

/// Lists of metadata, each of which is met by any of its values.
#[derive(Clone, Debug, Default)]
struct Filters {
    projects: Option<Set>,
    tags: Option<Set>,
    custom_fields: Vec<(String, Set)>,
}

impl ReduceOptions {
    /// Reads GrowthBook's form: `attributes`, `globalAttributes`, `include`, `exclude`, `prerequisites`.
    pub fn from_value(options: &Value) -> Self {
        let members = |name: &str| options.get(name).and_then(Value::as_object).cloned();
        let mut known = members("globalAttributes").unwrap_or_default();
        known.extend(members("attributes").unwrap_or_default());
        Self {
            known,
            include: Filters::from_value(options.get("include")),
            exclude: Filters::from_value(options.get("exclude")),
            filters_prerequisites: options.get("prerequisites") == Some(&json!("filter")),
        }
    }

    /// Whether a feature or an experiment with this metadata is asked for.
    fn keeps(&self, item: &Value) -> bool {
        let metadata = item.get("metadata");
        let field = |name: &str| metadata.and_then(|metadata| metadata.get(name));
        let custom = |name: &str| field("customFields").and_then(|fields| fields.get(name));
        let (include, exclude) = (&self.include, &self.exclude);
        let has = |set: &Option<Set>, name| set.as_ref().is_some_and(|set| is_in(set, field(name)));
        self.is_in_projects(item)
            && (include.tags.is_none() || has(&include.tags, "tags"))
            && include
                .custom_fields
                .iter()
                .all(|(name, set)| is_in(set, custom(name)))
            && !has(&exclude.projects, "projects")
            && !has(&exclude.tags, "tags")
            && !exclude
                .custom_fields
                .iter()
                .any(|(name, set)| is_in(set, custom(name)))
    }

    fn is_in_projects(&self, item: &Value) -> bool {
        let metadata = item.get("metadata");
        let field = |name: &str| metadata.and_then(|metadata| metadata.get(name));
        self.include.projects.as_ref().is_none_or(|projects| {
            field("allProjects").is_some_and(|all| js::truthy(all.into()))
                || is_in(projects, field("projects"))
        })
    }

    /// A rule without projects goes wherever its feature goes.
    fn keeps_rule(&self, rule: &Value) -> bool {
        let projects = rule
            .get("metadata")
            .and_then(|metadata| metadata.get("projects"));
        let projects = projects.filter(|projects| js::truthy((*projects).into()));
        match (&self.include.projects, projects) {
            (Some(wanted), Some(projects)) => is_in(wanted, Some(projects)),
            _ => true,
        }
    }
}

impl Filters {
    fn from_value(filters: Option<&Value>) -> Self {
        let set = |value: &Value| value.as_array().map(|items| Set::new(items, false));
        let member = |name: &str| filters.and_then(|filters| filters.get(name));
        let fields = member("customFields").and_then(Value::as_object);
        Self {
            projects: member("projects").and_then(set),
            tags: member("tags").and_then(set),
            custom_fields: fields
                .into_iter()
                .flatten()
                .map(|(name, values)| (name.clone(), set(values).unwrap_or_default()))
                .collect(),
        }
    }
}

/// A missing value is nobody's, not even null's.
fn is_in(set: &Set, value: Option<&Value>) -> bool {
    value.is_some_and(|value| set.matches(value.into()))
}

/// Shrinks a decrypted payload for a user who is partly known.
///
/// What is left evaluates as the whole would for everyone who has the known attributes. Members that evaluation does
/// not look at are kept.
pub fn reduce_payload(payload: &Value, options: &ReduceOptions) -> Value {
    let empty = Map::new();
    let members = |name: &str| {
        payload
            .get(name)
            .and_then(Value::as_object)
            .unwrap_or(&empty)
    };
    let saved_groups = members("savedGroups");
    let reducer = Reducer {
        options,
        all: members("features"),
        pruner: Pruner::new(&options.known, saved_groups),
    };
    let experiments = payload.get("experiments").and_then(Value::as_array);
    let experiments: Vec<Value> = experiments
        .into_iter()
        .flatten()
        .filter(|experiment| options.keeps(experiment))
        .map(|experiment| reducer.item(experiment, false))
        .collect();
    let features = reducer.features(&experiments);
    let bandits = reducer.bandits(members("contextualBandits"), &features, &experiments);
    let mut left = payload.as_object().cloned().unwrap_or_default();
    let roots = json!([features, experiments, bandits]);
    left.insert("features".into(), features.into());
    left.insert("experiments".into(), experiments.into());
    left.insert("savedGroups".into(), reducer.groups(&roots).into());
    if js::truthy_member(&left, "contextualBandits").is_some() {
        left.insert("contextualBandits".into(), bandits.into());
    } else {
        left.shift_remove("contextualBandits");
    }
    Value::Object(left)
}

struct Reducer<'a> {
    options: &'a ReduceOptions,
    all: &'a Map<String, Value>,
    pruner: Pruner<'a>,
}

impl Reducer<'_> {
    /// Reduces a rule or an auto experiment.
    fn item(&self, item: &Value, is_rule: bool) -> Value {
        let mut item = item.clone();
        let Some(members) = item.as_object_mut() else {
            return item;
        };
        let Some(condition) = js::truthy_member(members, "condition") else {
            return item;
        };
        match self.pruner.root(condition) {
            Value::Bool(true) => {
                members.shift_remove("condition");
            }
            // Sticky buckets and forced variations pass over an experiment's condition, so it stays an experiment.
            Value::Bool(false) => {
                members.insert("condition".into(), json!({"$not": {}}));
                if is_rule && members.contains_key("force") {
                    members.insert("force".into(), Value::Null);
                }
            }
            pruned => {
                members.insert("condition".into(), pruned);
            }
        }
        item
    }

    /// The features that are asked for, each followed by its prerequisites.
    fn features(&self, experiments: &[Value]) -> Map<String, Value> {
        let mut kept = Map::new();
        for (key, feature) in self.all {
            if self.options.keeps(feature) {
                self.add(key, &mut kept);
            }
        }
        for parent in experiments
            .iter()
            .flat_map(|experiment| self.parents(experiment))
        {
            self.add(&parent, &mut kept);
        }
        kept
    }

    fn add(&self, key: &str, kept: &mut Map<String, Value>) {
        let mut pending = vec![key.to_owned()];
        while let Some(key) = pending.pop() {
            let Some(feature) = js::truthy_member(self.all, &key) else {
                continue;
            };
            if kept.contains_key(&key) {
                continue;
            }
            let mut feature = feature.clone();
            // A prerequisite from another project keeps its own rules.
            let is_scoped = self.options.is_in_projects(&feature);
            if let Some(Value::Array(rules)) = feature.get_mut("rules") {
                rules.retain(|rule| !is_scoped || self.options.keeps_rule(rule));
                for rule in rules.iter_mut() {
                    *rule = self.item(rule, true);
                }
                let parents = rules.iter().flat_map(|rule| self.parents(rule));
                let parents: Vec<String> = parents.collect();
                pending.extend(parents.into_iter().rev());
            }
            kept.insert(key, feature);
        }
    }

    /// Prerequisites that go along.
    fn parents(&self, item: &Value) -> Vec<String> {
        let parents = item.get("parentConditions").and_then(Value::as_array);
        let ids = parents.into_iter().flatten();
        ids.filter_map(|parent| parent.get("id").and_then(Value::as_str))
            .filter(|id| !self.options.filters_prerequisites || id.starts_with("$holdout:"))
            .map(str::to_owned)
            .collect()
    }

    /// The bandits that are still used. A context whose condition fails cannot be the first that passes.
    fn bandits(
        &self,
        all: &Map<String, Value>,
        features: &Map<String, Value>,
        experiments: &[Value],
    ) -> Map<String, Value> {
        let rules = features
            .values()
            .filter_map(|feature| feature.get("rules")?.as_array());
        let mut kept = Map::new();
        for item in rules.flatten().chain(experiments) {
            let name = item.get("contextualBanditRef").and_then(Value::as_str);
            let Some((name, bandit)) = name.and_then(|name| Some((name, all.get(name)?))) else {
                continue;
            };
            if !kept.contains_key(name) {
                kept.insert(name.to_owned(), self.bandit(bandit));
            }
        }
        kept
    }

    fn bandit(&self, bandit: &Value) -> Value {
        let mut bandit = bandit.clone();
        if let Some(members) = bandit.as_object_mut() {
            let contexts = members.get("contexts").and_then(Value::as_array);
            let contexts: Vec<Value> = contexts
                .into_iter()
                .flatten()
                .filter_map(|context| self.bandit_context(context))
                .collect();
            members.insert("contexts".into(), contexts.into());
        }
        bandit
    }

    fn bandit_context(&self, context: &Value) -> Option<Value> {
        let mut context = context.clone();
        let members = context.as_object_mut()?;
        let condition = match js::truthy_member(members, "condition") {
            Some(condition) => self.pruner.root(condition),
            None => Value::Bool(true),
        };
        let condition = match condition {
            Value::Bool(false) => return None,
            Value::Bool(true) => json!({}),
            pruned => pruned,
        };
        members.insert("condition".into(), condition);
        Some(context)
    }

    /// The saved groups whose ids occur anywhere in what is left.
    fn groups(&self, roots: &Value) -> Map<String, Value> {
        let references = References::new(self.pruner.saved_groups);
        let as_written = references.as_written(roots);
        let mut kept = Map::new();
        let mut pending = references.within(roots);
        while let Some((position, _)) = pending.pop() {
            let (id, group) = references.group(position);
            if kept.contains_key(id) {
                continue;
            }
            let mut group = group.clone();
            // What a group on a cycle says depends on where the cycle was entered.
            if !as_written[position]
                && !references.is_cyclic(position)
                && let (Some(condition), Some(members)) =
                    (self.pruner.group(id), group.as_object_mut())
            {
                members.insert("condition".into(), condition);
            }
            pending.extend(references.of_group(&group));
            kept.insert(id.clone(), group);
        }
        kept
    }
}

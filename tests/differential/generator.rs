//! Random payloads and users, the same for the same seed on every machine.

use std::env;

use serde_json::{Map, Value, json};

/// `SplitMix64`: small, quick, and never changes under us.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    fn one_of(&mut self, from: Value) -> Value {
        let Value::Array(mut from) = from else {
            panic!("one of a list");
        };
        let at = self.below(from.len());
        from.swap_remove(at)
    }

    /// A share of units, with few digits so that borders are met.
    fn share(&mut self) -> f64 {
        f64::from(u32::try_from(self.below(41)).unwrap()) / 40.0
    }

    fn pair(&mut self) -> Value {
        let (a, b) = (self.share(), self.share());
        json!([a.min(b), a.max(b)])
    }
}

/// The seed of this run: fixed, or `STITCHD_TEST_SEED`.
pub(crate) fn seed() -> u64 {
    match env::var("STITCHD_TEST_SEED") {
        Ok(seed) => seed.parse().expect("STITCHD_TEST_SEED is a whole number"),
        Err(_) => 20_261_121,
    }
}

/// Whom the cases are for: not everybody knows everything.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// GrowthBook's SDK for JavaScript.
    JavaScript,
    /// GrowthBook Proxy's evaluation.
    Proxy,
    /// GrowthBook's SDK for Python.
    Python,
}

pub(crate) struct Generator {
    pub(crate) random: Random,
    audience: Audience,
}

const FEATURES: [&str; 10] = [
    "alpha",
    "beta",
    "10",
    "gamma",
    "2",
    "delta",
    "checkout-v2",
    "épsilon",
    "zeta.eta",
    "theta",
];
const EXPERIMENTS: [&str; 6] = ["exp-1", "exp-2", "exp-3", "exp_4", "Exp 5", "exp-é"];
const HASH_ATTRIBUTES: [&str; 4] = ["id", "company", "deviceId", "missing"];
const GROUPS: [&str; 7] = [
    "bare",
    "typed",
    "by-condition",
    "cycle",
    "odd",
    "empty",
    "unknown-id",
];
const PATHS: [&str; 15] = [
    "id",
    "company",
    "country",
    "age",
    "premium",
    "tags",
    "version",
    "email",
    "nested.city",
    "nested.deep.a",
    "orders",
    "nothing",
    "tags.0",
    "tags.length",
    "nested",
];

impl Generator {
    pub(crate) fn new(seed: u64, audience: Audience) -> Self {
        Self {
            random: Random::new(seed),
            audience,
        }
    }

    pub(crate) fn payload(&mut self) -> Value {
        let mut payload = Map::new();
        if self.random.chance(50) {
            payload.insert("status".into(), json!(200));
        }
        let count = 2 + self.random.below(7);
        let mut features = Map::new();
        for _ in 0..count {
            let key = self.random.pick(&FEATURES).to_owned();
            features.insert(key, self.feature());
        }
        payload.insert("features".into(), features.into());
        if self.random.chance(35) {
            let experiments: Vec<Value> = (0..self.random.below(4))
                .map(|_| self.auto_experiment())
                .collect();
            payload.insert("experiments".into(), experiments.into());
        }
        payload.insert("savedGroups".into(), self.saved_groups());
        payload.insert("dateUpdated".into(), json!("2026-09-24T15:16:39.450Z"));
        if self.random.chance(20) {
            payload.insert(
                "extra".into(),
                json!({"b": 1.50, "7": [1e-7, 1e21, -0.0], "a": "\u{7f}\u{1}\"é"}),
            );
        }
        if self.audience != Audience::Proxy {
            payload.insert("contextualBandits".into(), self.bandits());
        }
        payload.into()
    }

    fn feature(&mut self) -> Value {
        let mut feature = Map::new();
        if self.random.chance(90) {
            feature.insert("defaultValue".into(), self.value());
        }
        if self.random.chance(85) {
            let rules: Vec<Value> = (0..self.random.below(4)).map(|_| self.rule()).collect();
            feature.insert("rules".into(), rules.into());
        }
        feature.into()
    }

    fn value(&mut self) -> Value {
        self.random.one_of(json!([
            null, true, false, 0, 1, -3, 0.5, 1e-7, 1e21, 12_345_678.25, "", "on", "off", "déjà \"vu\"\n", [], {},
            [1, "a", null], {"color": "blue", "10": 1, "2": {"x": []}}
        ]))
    }

    fn rule(&mut self) -> Value {
        let mut rule = Map::new();
        if self.random.chance(50) {
            rule.insert("id".into(), json!(format!("fr_{}", self.random.below(9))));
        }
        if self.random.chance(25) {
            rule.insert("parentConditions".into(), self.parents());
        }
        match self.random.below(20) {
            0 => {}
            1..10 => self.force(&mut rule),
            10 if self.audience == Audience::Proxy => {
                rule.insert("force".into(), self.value());
                rule.insert("tracks".into(), self.tracks());
            }
            10..13 if self.audience != Audience::Proxy => {
                self.experiment(&mut rule);
                if let Some(variations) = rule.shift_remove("variations") {
                    rule.insert("contextualVariations".into(), variations);
                }
                rule.insert(
                    "contextualBanditRef".into(),
                    self.random.one_of(json!(["cb-1", "cb-2", "cb-3"])),
                );
            }
            _ => self.experiment(&mut rule),
        }
        rule.into()
    }

    fn force(&mut self, rule: &mut Map<String, Value>) {
        let value = self.value();
        let value = if value.is_null() && self.audience == Audience::Python {
            json!(7)
        } else {
            value
        };
        rule.insert("force".into(), value);
        if self.random.chance(60) {
            rule.insert("condition".into(), self.condition(2));
        }
        if self.random.chance(40) {
            rule.insert("coverage".into(), json!(self.random.share()));
        }
        if self.random.chance(15) {
            rule.insert("range".into(), self.random.pair());
        }
        self.hashing(rule);
        if self.random.chance(10) {
            rule.insert("filters".into(), self.filters());
        }
    }

    /// How units are named and hashed.
    fn hashing(&mut self, members: &mut Map<String, Value>) {
        if self.random.chance(50) {
            members.insert(
                "hashAttribute".into(),
                json!(self.random.pick(&HASH_ATTRIBUTES)),
            );
        }
        if self.random.chance(30) {
            members.insert(
                "fallbackAttribute".into(),
                json!(self.random.pick(&HASH_ATTRIBUTES)),
            );
        }
        if self.random.chance(60) {
            members.insert(
                "hashVersion".into(),
                self.random.one_of(json!([1, 2, 2, 2, 3])),
            );
        }
        if self.random.chance(40) {
            members.insert(
                "seed".into(),
                self.random.one_of(json!(["s", "exp-1", "sééd-\u{1f600}"])),
            );
        }
        if self.random.chance(15) {
            members.insert("disableStickyBucketing".into(), json!(true));
        }
    }

    fn filters(&mut self) -> Value {
        let filters = (0..=self.random.below(2)).map(|_| {
            let mut filter = Map::new();
            filter.insert("seed".into(), self.random.one_of(json!(["layer", "other"])));
            let ranges: Vec<Value> = (0..=self.random.below(2))
                .map(|_| self.random.pair())
                .collect();
            filter.insert("ranges".into(), ranges.into());
            if self.random.chance(50) {
                filter.insert(
                    "attribute".into(),
                    json!(self.random.pick(&HASH_ATTRIBUTES)),
                );
            }
            if self.random.chance(40) {
                filter.insert("hashVersion".into(), self.random.one_of(json!([1, 2])));
            }
            Value::from(filter)
        });
        filters.collect::<Vec<_>>().into()
    }

    /// An experiment's members, as a rule, an auto experiment and an inline one have them in common.
    fn experiment(&mut self, members: &mut Map<String, Value>) {
        let count = 2 + self.random.below(2);
        if self.random.chance(80) {
            members.insert("key".into(), json!(self.random.pick(&EXPERIMENTS)));
        }
        let variations: Vec<Value> = (0..count).map(|_| self.value()).collect();
        members.insert("variations".into(), variations.into());
        if self.random.chance(60) {
            let weights = match self.random.below(4) {
                0 => json!([0.4, 0.6, 0.0]),
                1 => json!([0.2, 0.3, 0.5]),
                2 => json!([0.9, 0.9, 0.9]),
                _ => json!([0.3333, 0.3333, 0.3334]),
            };
            let mut weights = weights.as_array().cloned().unwrap();
            weights.truncate(count);
            members.insert("weights".into(), weights.into());
        }
        if self.random.chance(60) {
            let coverage = if self.random.chance(70) {
                1.0
            } else {
                self.random.share()
            };
            members.insert("coverage".into(), json!(coverage));
        }
        self.hashing(members);
        if self.random.chance(15) {
            members.insert(
                "namespace".into(),
                json!(["layer", 0.0, self.random.share()]),
            );
        }
        if self.random.chance(15) {
            members.insert("filters".into(), self.filters());
        }
        if self.random.chance(20) {
            let ranges: Vec<Value> = (0..count).map(|_| self.random.pair()).collect();
            members.insert("ranges".into(), ranges.into());
        }
        if self.random.chance(60) {
            members.insert("meta".into(), self.meta(count));
        }
        if self.random.chance(40) {
            members.insert("condition".into(), self.condition(2));
        }
        if self.random.chance(25) {
            members.insert("bucketVersion".into(), json!(self.random.below(3)));
        }
        if self.random.chance(15) {
            members.insert("minBucketVersion".into(), json!(self.random.below(3)));
        }
        if self.random.chance(20) {
            members.insert("name".into(), json!("A name"));
            members.insert("phase".into(), json!("1"));
        }
    }

    fn meta(&mut self, count: usize) -> Value {
        let one = |index: usize| {
            let mut meta = Map::new();
            if self.random.chance(85) {
                meta.insert(
                    "key".into(),
                    json!(["control", "treatment", "third"][index]),
                );
            }
            if self.random.chance(40) {
                meta.insert("name".into(), json!(format!("Variation \"{index}\"")));
            }
            if self.random.chance(8) {
                meta.insert("passthrough".into(), json!(true));
            }
            Value::from(meta)
        };
        (0..count).map(one).collect::<Vec<_>>().into()
    }

    fn tracks(&mut self) -> Value {
        let variation = self.random.below(2);
        let track = json!({
            "experiment": {"key": self.random.pick(&EXPERIMENTS), "variations": [1, {"a": 1.0}], "condition": {"a": 1}},
            "result": {"key": "k", "variationId": variation, "value": 1, "hashAttribute": "id", "hashValue": "u1",
                       "inExperiment": true, "hashUsed": true, "featureId": "far", "bucket": 0.25}
        });
        let copies = 1 + self.random.below(2);
        vec![track; copies].into()
    }

    fn parents(&mut self) -> Value {
        let count = 1 + self.random.below(2);
        let parent = |_| {
            let id = if self.random.chance(92) {
                self.random.pick(&FEATURES)
            } else {
                "nobody"
            };
            let condition = match self.random.below(5) {
                0 => json!({"value": true}),
                1 => json!({"value": {"$exists": true}}),
                2 => json!({"value": {"$ne": null}}),
                3 => json!({"value": {"$in": [true, 1, "on", "off", 0.5]}}),
                _ => {
                    json!({"value": {"$type": self.random.pick(&["string", "number", "boolean", "object"])}})
                }
            };
            let mut parent = json!({"id": id, "condition": condition});
            if self.random.chance(40) {
                parent["gate"] = json!(true);
            }
            parent
        };
        (0..count).map(parent).collect::<Vec<_>>().into()
    }

    pub(crate) fn auto_experiment(&mut self) -> Value {
        let mut members = Map::new();
        self.experiment(&mut members);
        members.insert("key".into(), json!(self.random.pick(&EXPERIMENTS)));
        let count = members["variations"].as_array().unwrap().len();
        let is_redirect = self.random.chance(35);
        let variation = |index: usize| match (is_redirect, index) {
            (true, 0) => json!({"urlRedirect": ""}),
            (true, _) => {
                json!({"urlRedirect": format!("https://shop.example.com/new-{index}?v={index}")})
            }
            (false, 0) => json!({"domMutations": []}),
            (false, _) => json!({"css": ".a { color: red }", "js": "", "domMutations": [
                {"selector": "h1", "action": "set", "attribute": "html", "value": "<b>\"é\"</b>"}]}),
        };
        let variations: Vec<Value> = (0..count).map(variation).collect();
        members.insert("variations".into(), variations.into());
        members.insert("changeId".into(), json!("0f3a"));
        members.insert(
            "status".into(),
            self.random
                .one_of(json!(["running", "running", "running", "draft", "stopped"])),
        );
        if self.random.chance(85) {
            members.insert("urlPatterns".into(), self.url_patterns());
        }
        if self.random.chance(15) {
            members.insert("manual".into(), json!(true));
        }
        if self.random.chance(30) {
            members.insert("persistQueryString".into(), json!(true));
        }
        if self.random.chance(10) {
            members.insert("force".into(), json!(self.random.below(count + 1)));
        }
        if self.random.chance(20) {
            members.insert("parentConditions".into(), self.parents());
        }
        members.into()
    }

    fn url_patterns(&mut self) -> Value {
        let count = self.random.below(4);
        let pattern = |_| {
            let (kind, pattern) = match self.random.below(10) {
                0 => ("regex", "/shop/\\d+"),
                1 => ("regex", "^https://www\\."),
                2 => ("regex", "("),
                3 => ("simple", "/shop/*"),
                4 => ("simple", "https://*.example.com/shop"),
                5 => ("simple", "https://www.example.com/*?color=*"),
                6 => ("simple", "www.example.com/shop/1#top"),
                7 => ("simple", "*"),
                8 => ("simple", "https://shop.example.com/new-1"),
                _ => ("simple", "/a.b"),
            };
            json!({"include": self.random.chance(80), "type": kind, "pattern": pattern})
        };
        (0..count).map(pattern).collect::<Vec<_>>().into()
    }

    /// An experiment that is run by itself.
    pub(crate) fn inline_experiment(&mut self) -> Value {
        let mut members = Map::new();
        self.experiment(&mut members);
        members.insert("key".into(), json!(self.random.pick(&EXPERIMENTS)));
        if self.random.chance(20) {
            members.insert(
                "status".into(),
                self.random.one_of(json!(["draft", "running", "stopped"])),
            );
        }
        if self.random.chance(10) {
            members.insert("active".into(), json!(self.random.chance(50)));
        }
        if self.random.chance(10) {
            members.insert("force".into(), json!(self.random.below(3)));
        }
        if self.random.chance(20) {
            members.insert("parentConditions".into(), self.parents());
        }
        if self.random.chance(20) && self.audience == Audience::JavaScript {
            members.insert("urlPatterns".into(), self.url_patterns());
        }
        members.into()
    }
}

mod conditions;
mod users;

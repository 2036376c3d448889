//! Random conditions: every operator, on values of the right type and of others.

use serde_json::{Map, Value, json};

use super::{Audience, GROUPS, Generator, PATHS};

impl Generator {
    pub(super) fn condition(&mut self, depth: usize) -> Value {
        let mut condition = Map::new();
        for _ in 0..=self.random.below(2) {
            let (key, value) = self.entry(depth);
            condition.insert(key, value);
        }
        condition.into()
    }

    fn entry(&mut self, depth: usize) -> (String, Value) {
        if depth > 0 && self.random.chance(30) {
            let list = |generator: &mut Self| {
                let count = generator.random.below(3);
                (0..count)
                    .map(|_| generator.condition(depth - 1))
                    .collect::<Vec<_>>()
                    .into()
            };
            return match self.random.below(5) {
                0 => ("$or".into(), list(self)),
                1 => ("$nor".into(), list(self)),
                2 => ("$and".into(), list(self)),
                3 => ("$not".into(), self.condition(depth - 1)),
                _ => ("$savedGroup".into(), self.group_reference()),
            };
        }
        let path = self.random.pick(&PATHS).to_owned();
        let value = if self.random.chance(30) {
            self.literal()
        } else {
            self.operators(depth)
        };
        (path, value)
    }

    fn group_reference(&mut self) -> Value {
        let mut reference = json!({"id": self.random.pick(&GROUPS)});
        if self.random.chance(30) {
            reference["attributeKey"] = json!(self.random.pick(&PATHS));
        }
        reference
    }

    fn operators(&mut self, depth: usize) -> Value {
        let mut operators = Map::new();
        for _ in 0..=usize::from(self.random.chance(20)) {
            let (name, operand) = self.operator(depth);
            operators.insert(name.into(), operand);
        }
        operators.into()
    }

    fn operator(&mut self, depth: usize) -> (&'static str, Value) {
        match self.random.below(12) {
            0 => (self.random.pick(&["$eq", "$ne"]), self.literal()),
            1 | 2 => (
                self.random.pick(&["$lt", "$lte", "$gt", "$gte"]),
                self.scalar(),
            ),
            3 => (
                "$exists",
                self.random
                    .one_of(json!([true, false, 1, 0, "x", "", null])),
            ),
            4 | 5 => (
                self.random.pick(&["$in", "$nin", "$ini", "$nini"]),
                self.list(),
            ),
            6 => (self.random.pick(&["$all", "$alli"]), self.list()),
            7 => match self.random.below(3) {
                0 => (
                    "$size",
                    self.random
                        .one_of(json!([0, 1, 2, {"$gt": 1}, {"$lte": 2}, "1"])),
                ),
                1 => (
                    "$type",
                    json!(self.random.pick(&[
                        "string", "number", "boolean", "array", "object", "null", "x"
                    ])),
                ),
                _ => ("$nearly", json!(1)),
            },
            8 => (self.random.pick(&["$regex", "$regexi"]), self.pattern()),
            9 => {
                let name = self
                    .random
                    .pick(&["$veq", "$vne", "$vgt", "$vgte", "$vlt", "$vlte"]);
                let versions = json!([
                    "1.2.3",
                    "v1.2.3",
                    "2.0.0-rc.1",
                    "2.0.0",
                    "10.0.0+build",
                    "1.2",
                    3,
                    "",
                    true
                ]);
                (name, self.random.one_of(versions))
            }
            10 => (
                self.random.pick(&["$inGroup", "$notInGroup"]),
                json!(self.random.pick(&GROUPS)),
            ),
            _ if depth > 0 => match self.random.below(2) {
                0 => (
                    "$not",
                    if self.random.chance(30) {
                        self.literal()
                    } else {
                        self.operators(depth - 1)
                    },
                ),
                _ => ("$elemMatch", self.element()),
            },
            _ => ("$eq", self.scalar()),
        }
    }

    /// What an element of a list has to be.
    fn element(&mut self) -> Value {
        self.random.one_of(json!([
            {"$eq": "a"}, {"$gt": 1}, {"$in": ["a", 3]}, {"$regex": "^b"}, {"$not": {"$eq": "a"}},
            {"sku": "a"}, {"qty": {"$gte": 2}}, {"sku": "b", "qty": 1}, {"$or": [{"sku": "a"}, {"qty": 5}]},
            {"$not": {"sku": "a"}}
        ]))
    }

    fn scalar(&mut self) -> Value {
        self.random.one_of(json!([
            null, true, false, 0, 1, 18, 42, 2.5, -1, "", "18", "u1", "NL", "nl", "b", "1e1",
            " 5 ", "é", "true", "null"
        ]))
    }

    fn literal(&mut self) -> Value {
        if self.random.chance(80) {
            return self.scalar();
        }
        self.random.one_of(json!([
            [], ["a", "b"], ["b", "a"], {"city": "Gent"}, {"city": "Gent", "deep": {"a": 1}},
            {"deep": {"a": 1}, "city": "Gent"}, [1, 2.0]
        ]))
    }

    fn list(&mut self) -> Value {
        if self.random.chance(8) {
            return self.scalar();
        }
        (0..self.random.below(5))
            .map(|_| self.scalar())
            .chain([json!("A"), json!("u2")])
            .collect::<Vec<_>>()
            .into()
    }

    fn pattern(&mut self) -> Value {
        let patterns = json!([
            "^u",
            "\\d+",
            "example\\.com$",
            "NL|US",
            "(",
            "[a-z]+@",
            "(?<=u)1",
            "^$",
            "a.b",
            "É",
            "(u)(1)\\2?",
            "x{2,1}"
        ]);
        let pattern = self.random.one_of(patterns);
        // Python reads a few patterns otherwise; they are not what is compared.
        if self.audience == Audience::Python && (pattern == "É" || pattern == "^$") {
            return json!("^u");
        }
        pattern
    }

    pub(super) fn saved_groups(&mut self) -> Value {
        json!({
            "bare": ["u1", "u2", "c1", 7, "NL"],
            "typed": {"type": "list", "attributeKey": self.random.pick(&PATHS), "values": ["u1", "u3", "US", 3, true, "a"]},
            "by-condition": {"type": "condition", "condition": self.condition(1)},
            "cycle": {"type": "condition", "condition": {"$or": [{"$savedGroup": {"id": "cycle"}}, {"country": "NL"}]}},
            "odd": {"type": "of-the-future", "values": ["u1"]},
            "empty": []
        })
    }

    pub(super) fn bandits(&mut self) -> Value {
        let contexts: Vec<Value> = (1..3 + self.random.below(2))
            .map(|leaf| json!({"leafId": leaf, "condition": self.condition(1), "weights": [0.25, 0.75]}))
            .collect();
        json!({
            "cb-1": {"banditVersion": 7, "contexts": contexts},
            "cb-2": {"contexts": [{"leafId": 5, "condition": {}, "weights": [0.5, 0.5]}]}
        })
    }
}

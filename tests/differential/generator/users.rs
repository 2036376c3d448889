//! Random users: attributes, the page, what is forced, what was given before.

use serde_json::{Map, Value, json};

use super::{Audience, EXPERIMENTS, FEATURES, Generator};

impl Generator {
    /// `{"attributes", "url"?, "forcedVariations"?, "forcedFeatures"?, "sticky"?}`
    pub(crate) fn user(&mut self) -> Value {
        let mut user = Map::new();
        user.insert("attributes".into(), self.attributes());
        if self.random.chance(60) {
            user.insert("url".into(), self.url());
        }
        if self.random.chance(15) {
            let forced: Map<String, Value> = (0..=self.random.below(2))
                .map(|_| {
                    (
                        self.random.pick(&EXPERIMENTS).to_owned(),
                        json!(self.random.below(4)),
                    )
                })
                .collect();
            user.insert("forcedVariations".into(), forced.into());
        }
        if self.random.chance(15) && self.audience != Audience::Python {
            let forced: Vec<Value> = (0..=self.random.below(2))
                .map(|_| json!([self.random.pick(&FEATURES), self.value()]))
                .collect();
            user.insert("forcedFeatures".into(), forced.into());
        }
        if self.random.chance(30) {
            user.insert("sticky".into(), self.sticky(&user["attributes"].clone()));
        }
        user.into()
    }

    fn attributes(&mut self) -> Value {
        let pool = [
            (
                "id",
                json!(["u1", "u2", "u3", "u4", "u5", "é-6", 7, 8.5, "", 0]),
            ),
            ("company", json!(["c1", "c2", "c3", 7, true])),
            ("deviceId", json!(["d1", "d2", null])),
            ("country", json!(["NL", "US", "nl", "", "FR"])),
            ("age", json!([18, 42, 2.5, "18", "abc", 0, -1])),
            ("premium", json!([true, false, "true", 1])),
            (
                "tags",
                json!([["a", "b"], [], ["b", "A", 3], [1, 2], [null, false, 0, ""], "a", [["a"], {"x": 1}]]),
            ),
            (
                "version",
                json!(["1.2.3", "2.0.0", "2.0.0-rc.2", "v10.0.0", 3, "1.2", "x"]),
            ),
            (
                "email",
                json!(["u1@example.com", "someone@example.org", "É"]),
            ),
            (
                "nested",
                json!([{"city": "Gent", "deep": {"a": 1}}, {"deep": {"a": "x"}, "city": "Gent"}, {"city": "Gent"}, {}, []]),
            ),
            (
                "orders",
                json!([[{"sku": "a", "qty": 2}, {"sku": "b", "qty": 1}], [{"sku": "c"}], [], [1, "a", null], {"sku": "a"}]),
            ),
            ("nothing", json!([null])),
        ];
        let mut attributes = Map::new();
        for (name, values) in pool {
            let likely = if name == "id" { 92 } else { 70 };
            if self.random.chance(likely) {
                // Most users are ordinary: the first values come more often.
                let values = values.as_array().unwrap();
                let limit = if self.random.chance(60) {
                    values.len().min(3)
                } else {
                    values.len()
                };
                attributes.insert(name.into(), values[self.random.below(limit)].clone());
            }
        }
        attributes.into()
    }

    fn url(&mut self) -> Value {
        self.random.one_of(json!([
            "https://www.example.com/shop/1?color=red",
            "https://www.example.com/shop/1#top",
            "https://www.example.com/",
            "http://shop.example.com/shop/",
            "https://www.example.com/a.b?exp-1=1",
            "https://www.example.com/?exp-2=7&exp-2=0",
            "https://www.example.com/shop?exp-3=x",
            "not a url",
            "https://other.example.org/aXb?utm=1&v=9",
            ""
        ]))
    }

    /// Documents of some of the user's units.
    fn sticky(&mut self, attributes: &Value) -> Value {
        let mut documents = Vec::new();
        for name in ["id", "company", "deviceId"] {
            let value = match attributes.get(name) {
                Some(Value::String(text)) if !text.is_empty() => text.clone(),
                Some(Value::Number(number)) if number.as_f64() != Some(0.0) => number.to_string(),
                _ => continue,
            };
            if self.random.chance(30) {
                continue;
            }
            let assignments: Map<String, Value> = (0..self.random.below(4))
                .map(|_| {
                    let experiment = self.random.pick(&EXPERIMENTS);
                    let key = format!("{experiment}__{}", self.random.below(3));
                    (
                        key,
                        self.random
                            .one_of(json!(["control", "treatment", "third", "gone"])),
                    )
                })
                .collect();
            documents.push(
                json!({"attributeName": name, "attributeValue": value, "assignments": assignments}),
            );
        }
        documents.into()
    }
}

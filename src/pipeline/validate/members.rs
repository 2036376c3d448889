//! Typed access to members of a JSON object, with the path in every complaint. `null` counts as absent.

use super::BadItem;
use crate::model::{Json, json};

/// An object and where it is.
#[derive(Clone, Copy)]
pub(super) struct Members<'a> {
    object: &'a json::Members<'a>,
    at: &'a str,
}

impl<'a> Members<'a> {
    pub(super) fn of(value: &'a Json<'a>, at: &'a str) -> Result<Self, BadItem> {
        let object = value
            .as_object()
            .ok_or_else(|| wrong(at, value, "an object"))?;
        Ok(Self { object, at })
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Json<'a>> {
        self.object
            .get(name)
            .filter(|value| !matches!(value, Json::Null))
    }

    pub(super) fn path(&self, name: &str) -> String {
        format!("{}.{name}", self.at)
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Json<'a>) -> Option<T>,
    ) -> Result<Option<T>, BadItem> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match read(value) {
            Some(typed) => Ok(Some(typed)),
            None => Err(wrong(&self.path(name), value, expected)),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, BadItem> {
        self.typed(name, "a string", Json::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, BadItem> {
        self.typed(name, "a number", finite)
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, BadItem> {
        self.typed(name, "a boolean", Json::as_bool)
    }

    pub(super) fn list(&self, name: &str) -> Result<Option<&'a [Json<'a>]>, BadItem> {
        self.typed(name, "an array", Json::as_list)
    }

    pub(super) fn object(&self, name: &str) -> Result<Option<&'a json::Members<'a>>, BadItem> {
        self.typed(name, "an object", Json::as_object)
    }

    pub(super) fn numbers(&self, name: &str) -> Result<Option<Vec<f64>>, BadItem> {
        let numbers = |value: &Json<'_>| value.as_list()?.iter().map(finite).collect();
        self.typed(name, "an array of finite numbers", numbers)
    }

    pub(super) fn range(&self, name: &str) -> Result<Option<(f64, f64)>, BadItem> {
        self.typed(name, "an array of two finite numbers", range)
    }

    pub(super) fn ranges(&self, name: &str) -> Result<Option<Vec<(f64, f64)>>, BadItem> {
        let ranges = |value: &Json<'_>| value.as_list()?.iter().map(range).collect();
        self.typed(name, "an array of pairs of finite numbers", ranges)
    }

    pub(super) fn required_text(&self, name: &str) -> Result<&'a str, BadItem> {
        let missing = || BadItem::new(self.path(name), "is missing");
        self.text(name)?
            .filter(|text| !text.is_empty())
            .ok_or_else(missing)
    }
}

fn finite(value: &Json<'_>) -> Option<f64> {
    value.as_f64().filter(|number| number.is_finite())
}

fn range(value: &Json<'_>) -> Option<(f64, f64)> {
    match value.as_list()? {
        [low, high] => Some((finite(low)?, finite(high)?)),
        _ => None,
    }
}

pub(super) fn wrong(path: &str, value: &Json<'_>, expected: &str) -> BadItem {
    let got = match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::Text(_) => "a string",
        Json::List(_) => "an array",
        Json::Object(_) => "an object",
    };
    let got = if expected.contains(got.trim_start_matches("an ").trim_start_matches("a ")) {
        "something else".to_owned()
    } else {
        got.to_owned()
    };
    BadItem::new(path, format!("is {got}, not {expected}"))
}

//! Named values of a request, from the query or from a JSON body, each mistake answered with the field's name.
//!
//! Both kinds give a [`Fields`]; a handler takes out what it knows by name and type, and what is left is unknown. Reading
//! is strict on purpose: a misspelt `contexts` would otherwise put everybody into the wrong group.

use std::borrow::Cow;

use actix_web::web;
use serde_json::{Map, Value};

use super::{error::ApiError, extract, state::Shared};

/// Fields by name, until they are taken out.
pub(super) struct Fields<'q> {
    kind: Kind<'q>,
    /// What stands before a field's name in errors: `units[3].`.
    at: String,
    /// Bytes that were read.
    bytes: usize,
}

enum Kind<'q> {
    /// Query parameters; few, so they are searched one by one.
    Query(Vec<(Cow<'q, str>, Cow<'q, str>)>),
    Body(Map<String, Value>),
}

/// The value of a field as it was sent.
pub(super) enum Given<'q> {
    /// A query parameter.
    Text(Cow<'q, str>),
    /// A member of a body.
    Json(Value),
}

impl<'q> Fields<'q> {
    /// The query parameters. Fails on text that is not UTF-8, and on a name that is there twice.
    pub(super) fn from_query(query: &'q str) -> Result<Self, ApiError> {
        let mut fields: Vec<(Cow<'q, str>, Cow<'q, str>)> = Vec::with_capacity(4);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name =
                decode(name).ok_or_else(|| ApiError::bad_request("query", "is not UTF-8"))?;
            let Some(value) = decode(value) else {
                return Err(ApiError::bad_request(name, "is not UTF-8"));
            };
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(ApiError::bad_request(name, "is there twice; send it once"));
            }
            fields.push((name, value));
        }
        Ok(Self {
            kind: Kind::Query(fields),
            at: String::new(),
            bytes: query.len(),
        })
    }

    /// The members of a body that must be a JSON object.
    pub(super) async fn from_body(
        shared: &Shared,
        payload: web::Payload,
    ) -> Result<Self, ApiError> {
        let body = extract::body(shared, payload).await?;
        if body.trim_ascii().is_empty() {
            return Err(ApiError::bad_request(
                "body",
                "is missing; send a JSON object",
            ));
        }
        let value = serde_json::from_slice(&body)
            .map_err(|error| ApiError::bad_request("body", format!("is not JSON: {error}")))?;
        let Value::Object(members) = value else {
            return Err(ApiError::bad_request("body", "is not a JSON object"));
        };
        Ok(Self {
            kind: Kind::Body(members),
            at: String::new(),
            bytes: body.len(),
        })
    }

    /// The members of an object inside a body.
    pub(super) fn inside(members: Map<String, Value>, at: String) -> Self {
        Self {
            kind: Kind::Body(members),
            at,
            bytes: 0,
        }
    }

    /// Bytes that were read: what working through them costs.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Complains about a field.
    pub(super) fn wrong(&self, name: &str, reason: impl Into<String>) -> ApiError {
        ApiError::bad_request(format!("{}{name}", self.at), reason)
    }

    /// Takes a field out as it is; null is nothing.
    pub(super) fn take(&mut self, name: &str) -> Option<Given<'q>> {
        match &mut self.kind {
            Kind::Query(fields) => {
                let at = fields.iter().position(|(known, _)| known == name)?;
                Some(Given::Text(fields.swap_remove(at).1))
            }
            Kind::Body(members) => match members.swap_remove(name)? {
                Value::Null => None,
                value => Some(Given::Json(value)),
            },
        }
    }

    /// A text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<Cow<'q, str>>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Given::Text(text)) => Ok(Some(text)),
            Some(Given::Json(Value::String(text))) => Ok(Some(text.into())),
            Some(Given::Json(other)) => {
                Err(self.wrong(name, format!("is {}, not a string", kind(&other))))
            }
        }
    }

    /// A number without sign or fraction.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, ApiError> {
        let number = match self.take(name) {
            None => return Ok(None),
            Some(Given::Text(text)) => text.parse().ok(),
            Some(Given::Json(value)) => value.as_u64(),
        };
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(name, "is not a whole number from 0")),
        }
    }

    /// How many entries a list is to have: `limit`, from 1 to `max`.
    pub(super) fn limit(&mut self, default: u64, max: u64) -> Result<u64, ApiError> {
        let limit = self.number("limit")?.unwrap_or(default);
        if !(1..=max).contains(&limit) {
            return Err(self.wrong("limit", format!("use 1 to {max}")));
        }
        Ok(limit)
    }

    /// A truth; in a query `true`, `1` and nothing at all are true, `false` and `0` false.
    pub(super) fn truth(&mut self, name: &str) -> Result<bool, ApiError> {
        match self.take(name) {
            None => Ok(false),
            Some(Given::Json(Value::Bool(truth))) => Ok(truth),
            Some(Given::Json(other)) => {
                Err(self.wrong(name, format!("is {}, not true or false", kind(&other))))
            }
            Some(Given::Text(text)) => match &*text {
                "" | "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(self.wrong(name, "use `true` or `false`")),
            },
        }
    }

    /// An object; in a query as JSON text, where nothing at all is no object.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        let value = match self.take(name) {
            None => return Ok(None),
            Some(Given::Text(text)) if text.is_empty() => return Ok(None),
            Some(Given::Text(text)) => serde_json::from_str(&text)
                .map_err(|error| self.wrong(name, format!("is not JSON: {error}")))?,
            Some(Given::Json(value)) => value,
        };
        match value {
            Value::Object(members) => Ok(Some(members)),
            other => Err(self.wrong(name, format!("is {}, not an object", kind(&other)))),
        }
    }

    /// A list of texts; in a query separated by commas. Empty parts are left out.
    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<String>, ApiError> {
        let items = match self.take(name) {
            None => return Ok(Vec::new()),
            Some(Given::Text(text)) => {
                let parts = text.split(',').map(str::trim);
                return Ok(parts
                    .filter(|part| !part.is_empty())
                    .map(str::to_owned)
                    .collect());
            }
            Some(Given::Json(Value::Array(items))) => items,
            Some(Given::Json(other)) => {
                return Err(self.wrong(name, format!("is {}, not a list of strings", kind(&other))));
            }
        };
        let text = |(at, item): (usize, Value)| match item {
            Value::String(text) => Ok(text),
            other => Err(self.wrong(
                &format!("{name}[{at}]"),
                format!("is {}, not a string", kind(&other)),
            )),
        };
        items.into_iter().enumerate().map(text).collect()
    }

    /// Whether every field was taken out.
    pub(super) fn is_empty(&self) -> bool {
        match &self.kind {
            Kind::Query(fields) => fields.is_empty(),
            Kind::Body(members) => members.is_empty(),
        }
    }

    /// Ends the reading: a field that nobody took is one that nobody knows. `known` is for the answer.
    pub(super) fn finish(self, known: &str) -> Result<(), ApiError> {
        let unknown = match &self.kind {
            Kind::Query(fields) => fields.first().map(|(name, _)| &**name),
            Kind::Body(members) => members.keys().next().map(String::as_str),
        };
        match unknown {
            Some(name) => Err(self.wrong(name, format!("is unknown; known are {known}"))),
            None => Ok(()),
        }
    }
}

/// What a value is, with its article.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Undoes the encoding of a query's part; what is no escape stays. `None` where the result is not UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('+') {
        return decode_path(text);
    }
    // A real plus sign is escaped, so it is not among these.
    let spaced = text.replace('+', " ");
    Some(decode_path(&spaced)?.into_owned().into())
}

/// Undoes the escapes of a path's part; what is none stays. `None` where the result is not UTF-8.
pub(super) fn decode_path(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'%' => match after {
                [high, low, after @ ..]
                    if let (Some(high), Some(low)) = (digit(*high), digit(*low)) =>
                {
                    bytes.push(high * 16 + low);
                    rest = after;
                }
                _ => bytes.push(b'%'),
            },
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// The value of a hexadecimal digit.
fn digit(byte: u8) -> Option<u8> {
    let value = char::from(byte).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_and_what_is_none_stays() {
        for (text, expected) in [
            ("plain", Some("plain")),
            ("a+b%20c", Some("a b c")),
            ("caf%C3%A9", Some("café")),
            ("100%", Some("100%")),
            ("%zz%4", Some("%zz%4")),
            ("%7B%22a%22%3A1%7D", Some("{\"a\":1}")),
            ("%ff", None),
        ] {
            assert_eq!(decode(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_query_is_read_strictly() {
        let wrong = |query| match Fields::from_query(query) {
            Err(ApiError::BadRequest { field, .. }) => field,
            _ => panic!("{query} is taken"),
        };
        assert_eq!(wrong("user_key=a&user_key=b"), "user_key");
        assert_eq!(wrong("user_key=%ff"), "user_key");
        assert_eq!(wrong("%ff=a"), "query");
        let mut fields = Fields::from_query("a=1&b&c=x,,%20y&&d=").unwrap();
        assert_eq!(fields.text("a").unwrap().as_deref(), Some("1"));
        assert!(fields.truth("b").unwrap());
        assert_eq!(fields.texts("c").unwrap(), ["x", "y"]);
        assert_eq!(fields.object("d").unwrap(), None);
        fields.finish("a").unwrap();
    }
}

//! What is asked: the body of both operations, and its failures in the protocol's shape.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
    web,
};
use serde_json::{Map, Value, json};

use super::super::{
    documents::JSON, error::ApiError, extract, fields::kind, flags::set_unit, state::HttpState,
};

/// One user's question.
pub(super) struct Question {
    /// The context as attributes: an object.
    pub(super) attributes: Value,
    /// Bytes that were sent: what working through them costs.
    pub(super) bytes: usize,
}

/// Why a question cannot be answered; status 400.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    code: &'static str,
    details: String,
}

impl Question {
    /// Reads a body. An empty one, `{}`, and one without context ask for a user of whom nothing is known.
    pub(super) async fn read(
        state: &HttpState,
        payload: web::Payload,
    ) -> Result<Result<Self, Failure>, ApiError> {
        let body = extract::body(&state.shared, payload).await?;
        Ok(Self::of(&body))
    }

    fn of(body: &[u8]) -> Result<Self, Failure> {
        let bytes = body.len();
        let mut attributes = context(body)?;
        match attributes.get("targetingKey") {
            None | Some(Value::Null) => {}
            Some(Value::String(unit)) => {
                let unit = unit.clone();
                set_unit(&mut attributes, &unit);
            }
            Some(other) => {
                let details = format!("`targetingKey` is {}, not a string", kind(other));
                return Err(Failure::context(details));
            }
        }
        Ok(Self {
            attributes: Value::Object(attributes),
            bytes,
        })
    }

    /// The attributes.
    pub(super) fn attributes(&self) -> &Map<String, Value> {
        let attributes = self.attributes.as_object();
        attributes.expect("it is made of an object")
    }
}

fn context(body: &[u8]) -> Result<Map<String, Value>, Failure> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| Failure::parse(format!("the body is not JSON: {error}")))?;
    let Value::Object(mut members) = body else {
        let details = format!("the body is {}, not an object", kind(&body));
        return Err(Failure::parse(details));
    };
    match members.swap_remove("context") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(context)) => Ok(context),
        Some(other) => {
            let details = format!("`context` is {}, not an object", kind(&other));
            Err(Failure::context(details))
        }
    }
}

impl Failure {
    /// The body or the path cannot be read.
    pub(super) fn parse(details: impl Into<String>) -> Self {
        Self {
            code: "PARSE_ERROR",
            details: details.into(),
        }
    }

    fn context(details: String) -> Self {
        Self {
            code: "INVALID_CONTEXT",
            details,
        }
    }

    /// The answer; with the flag's key where one flag was asked for.
    pub(super) fn respond(&self, key: Option<&str>) -> HttpResponse {
        let mut body = Map::new();
        if let Some(key) = key {
            body.insert("key".to_owned(), json!(key));
        }
        body.insert("errorCode".to_owned(), json!(self.code));
        body.insert("errorDetails".to_owned(), json!(self.details));
        HttpResponse::build(StatusCode::BAD_REQUEST)
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .insert_header((header::CONTENT_TYPE, JSON))
            .body(Value::Object(body).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_as_lenient_clients_send_them() {
        let read = |body: &str| Question::of(body.as_bytes()).map(|question| question.attributes);
        for empty in ["", "  ", "{}", r#"{"context":null}"#, r#"{"context":{}}"#] {
            assert_eq!(read(empty), Ok(json!({})), "{empty}");
        }
        let body = r#"{"context":{"targetingKey":"u","plan":"pro"},"other":1}"#;
        let expected = json!({"targetingKey": "u", "plan": "pro", "id": "u"});
        assert_eq!(read(body), Ok(expected));
        let body = r#"{"context":{"targetingKey":"u","id":"own"}}"#;
        assert_eq!(read(body).unwrap()["id"], "own");
        let code = |body: &str| read(body).unwrap_err().code;
        assert_eq!(code("{"), "PARSE_ERROR");
        assert_eq!(code("[]"), "PARSE_ERROR");
        assert_eq!(code(r#"{"context":[]}"#), "INVALID_CONTEXT");
        assert_eq!(code(r#"{"context":{"targetingKey":7}}"#), "INVALID_CONTEXT");
    }
}

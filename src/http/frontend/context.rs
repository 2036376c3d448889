//! Unleash's context, as SDKs send it, as attributes.
//!
//! Its own fields (`userId`, `sessionId`, `remoteAddress`, …) and `properties`, however they are nested or spelled, become
//! attributes of these names; `userId` is also the attribute `id` where there is none. What is empty is left out. Nothing is
//! added that was not sent: a session id drawn for each request would put an anonymous user into another variation each time.

use serde_json::{Map, Value};

use super::super::{error::ApiError, fields::kind, flags::set_unit};

/// The field that names the user.
const USER_ID: &str = "userId";
/// The field with further attributes.
const PROPERTIES: &str = "properties";

/// Reads the query of a GET: `userId=7&properties[plan]=pro&anything=else`.
pub(super) fn from_query(query: &str) -> Map<String, Value> {
    let mut attributes = Map::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let inner = name.strip_prefix(PROPERTIES);
        let inner = inner.and_then(|rest| rest.strip_prefix('[')?.strip_suffix(']'));
        let name = inner.unwrap_or(&name);
        if !value.is_empty() {
            attributes.insert(name.to_owned(), value.as_ref().into());
        }
    }
    with_unit(attributes)
}

/// Reads the body of a POST: a context, nested in `context` or by itself, or nothing.
pub(super) fn from_body(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    let wrong = |field: &str, reason: String| ApiError::bad_request(field, reason);
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| wrong("body", format!("is not JSON: {error}")))?;
    let Value::Object(mut members) = body else {
        return Err(wrong("body", format!("is {}, not an object", kind(&body))));
    };
    let context = match members.swap_remove("context") {
        None => members,
        Some(Value::Null) => Map::new(),
        Some(Value::Object(context)) => context,
        Some(other) => {
            return Err(wrong(
                "context",
                format!("is {}, not an object", kind(&other)),
            ));
        }
    };
    let mut attributes = Map::new();
    for (name, value) in context {
        match value {
            Value::Object(properties) if name == PROPERTIES => {
                attributes.extend(properties.into_iter().filter(|(_, value)| is_there(value)));
            }
            value if is_there(&value) => {
                attributes.entry(name).or_insert(value);
            }
            _ => {}
        }
    }
    Ok(with_unit(attributes))
}

fn is_there(value: &Value) -> bool {
    !value.is_null() && value.as_str() != Some("")
}

fn with_unit(mut attributes: Map<String, Value>) -> Map<String, Value> {
    let unit = match attributes.get(USER_ID) {
        Some(Value::String(unit)) => unit.clone(),
        // Unleash's ids are texts, whatever a client sends.
        Some(Value::Number(unit)) => unit.to_string(),
        _ => return attributes,
    };
    set_unit(&mut attributes, &unit);
    attributes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_query_is_read_in_every_spelling() {
        let read = |query: &str| Value::Object(from_query(query));
        assert_eq!(
            read(
                "sessionId=1&appName=web&userId=u+1&properties%5Bplan%5D=pro+x&properties[a]=b&country=DE&empty="
            ),
            json!({"sessionId": "1", "appName": "web", "userId": "u 1", "plan": "pro x", "a": "b", "country": "DE", "id": "u 1"})
        );
        assert_eq!(read("userId=u&properties[id]=own")["id"], "own");
        assert_eq!(read(""), json!({}));
        assert_eq!(
            read("properties=odd&properties[=x"),
            json!({"properties": "odd", "properties[": "x"})
        );
    }

    #[test]
    fn a_body_is_read_nested_and_bare() {
        let read = |body: Value| Value::Object(from_body(body.to_string().as_bytes()).unwrap());
        let expected = json!({"userId": "u", "plan": "pro", "age": 7, "id": "u"});
        let context = json!({"userId": "u", "properties": {"plan": "pro", "age": 7, "none": null}});
        let sorted = |value: Value| value.as_object().unwrap().clone();
        for body in [json!({ "context": context }), context] {
            assert_eq!(sorted(read(body)), sorted(expected.clone()));
        }
        assert_eq!(read(json!({"context": {"userId": 7}}))["id"], "7");
        assert_eq!(read(json!({"context": null})), json!({}));
        assert_eq!(from_body(b" ").unwrap(), Map::new());
        for bad in ["[]", "{", r#"{"context":[]}"#] {
            assert!(from_body(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}

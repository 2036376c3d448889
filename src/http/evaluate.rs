//! `/v1/evaluate/{key}`: the value of one feature, of the type that the caller wants.

use std::borrow::Cow;

use actix_web::{HttpRequest, HttpResponse, rt::task::spawn_blocking, web};
use serde_json::{Map, Number, Value, json};

use super::{
    error::ApiError,
    evaluation::{self, LIGHT_BYTES_MAX},
    fields::{Fields, Given, decode_path, kind},
    state::HttpState,
};
use crate::eval::{Context, Environment, Source};

/// Fields, for whoever misspells one.
const KNOWN: &str = "env, type, default, context, user_key, dialect";

/// Why the default was given although the feature has a value.
const TYPE_MISMATCH: &str = "typeMismatch";

/// A type that a caller may want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Boolean,
    String,
    Integer,
    /// Any number; the same as `number`.
    Float,
    Number,
    /// GrowthBook's `json`: an object or a list.
    Object,
}

impl Type {
    const ALL: [Self; 6] = [
        Self::Boolean,
        Self::String,
        Self::Integer,
        Self::Float,
        Self::Number,
        Self::Object,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Number => "number",
            Self::Object => "object",
        }
    }

    /// The value, if it is of this type. Whole numbers are spelt as such where integers are wanted.
    fn fit(self, value: &Value) -> Option<Cow<'_, Value>> {
        let fits = match self {
            Self::Boolean => value.is_boolean(),
            Self::String => value.is_string(),
            Self::Float | Self::Number => value.is_number(),
            Self::Object => value.is_object() || value.is_array(),
            Self::Integer => return integer(value),
        };
        fits.then_some(Cow::Borrowed(value))
    }

    /// The type of a value; null has none.
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::Bool(_) => Some(Self::Boolean),
            Value::Number(_) if integer(value).is_some() => Some(Self::Integer),
            Value::Number(_) => Some(Self::Float),
            Value::String(_) => Some(Self::String),
            Value::Array(_) | Value::Object(_) => Some(Self::Object),
        }
    }
}

/// Below this, doubles tell whole numbers apart.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

fn integer(value: &Value) -> Option<Cow<'_, Value>> {
    let number = value.as_number()?;
    if number.is_i64() || number.is_u64() {
        return Some(Cow::Borrowed(value));
    }
    let number = number.as_f64()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is whole and below 2^53"
    )]
    let whole = (number.fract() == 0.0 && number.abs() < WHOLE_MAX).then_some(number as i64)?;
    Some(Cow::Owned(Value::Number(Number::from(whole))))
}

/// What is asked.
struct Question {
    key: String,
    wanted: Option<Type>,
    default: Value,
    attributes: Map<String, Value>,
}

/// What is answered, without the revision.
struct Answer {
    value: Value,
    reason: &'static str,
}

/// `GET|POST /v1/evaluate/{key}`.
pub(super) async fn evaluate(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<HttpState>,
) -> Result<HttpResponse, ApiError> {
    let key = request.match_info().get("key").unwrap_or_default();
    let key = decode_path(key).ok_or_else(|| ApiError::bad_request("key", "is not UTF-8"))?;
    let mut fields = evaluation::fields(&request, payload, &state).await?;
    let is_light = fields.bytes() <= LIGHT_BYTES_MAX;
    let environment = fields.text("env")?.filter(|name| !name.is_empty());
    let dialect = evaluation::dialect(&mut fields)?;
    let wanted = wanted(&mut fields)?;
    let user_key = fields.text("user_key")?.unwrap_or_default();
    let question = Question {
        key: key.into_owned(),
        wanted,
        default: default(&mut fields, wanted)?,
        attributes: evaluation::attributes(&user_key, fields.object("context")?),
    };
    fields.finish(KNOWN)?;
    let subject = evaluation::subject(&state, &request, environment.as_deref(), dialect).await?;
    let (snapshot, dialect) = (subject.snapshot.clone(), subject.dialect);
    let visibility = subject.visibility.clone();
    let work = move || {
        let environment = snapshot.evaluator(dialect)?;
        let is_visible = visibility.is_none_or(|visibility| {
            let projects = environment.projects(&question.key);
            projects.is_some_and(|projects| visibility.sees_feature(projects))
        });
        let answer = if is_visible {
            answer(&question, environment)
        } else {
            Answer {
                value: question.default.clone(),
                reason: Source::UnknownFeature.as_str(),
            }
        };
        Some((question, answer))
    };
    let done = if is_light {
        work()
    } else {
        spawn_blocking(work).await.or(Err(ApiError::Internal))?
    };
    let (question, answer) = done.ok_or(ApiError::Internal)?;
    let kind = question.wanted.or_else(|| Type::of(&answer.value));
    if answer.reason == TYPE_MISMATCH {
        let wanted = question.wanted.map(Type::as_str).unwrap_or_default();
        state.shared.metrics.type_mismatched(wanted);
    }
    let body = json!({
        "key": question.key,
        "value": answer.value,
        "type": kind.map(Type::as_str),
        "reason": answer.reason,
        "revision": subject.snapshot.revision,
    });
    Ok(evaluation::respond(&subject, body.to_string().into_bytes()))
}

fn answer(question: &Question, environment: &Environment) -> Answer {
    let context = Context::new(&question.attributes);
    let result = environment.feature(&context, &question.key);
    let is_absent = result.value.is_null() || result.source == Source::UnknownFeature;
    if is_absent {
        return Answer {
            value: question.default.clone(),
            reason: result.source.as_str(),
        };
    }
    let fitting = match question.wanted {
        Some(wanted) => wanted.fit(result.value),
        None => Some(Cow::Borrowed(result.value)),
    };
    match fitting {
        Some(value) => Answer {
            value: value.into_owned(),
            reason: result.source.as_str(),
        },
        None => Answer {
            value: question.default.clone(),
            reason: TYPE_MISMATCH,
        },
    }
}

fn wanted(fields: &mut Fields<'_>) -> Result<Option<Type>, ApiError> {
    let Some(word) = fields.text("type")? else {
        return Ok(None);
    };
    let found = Type::ALL.into_iter().find(|kind| kind.as_str() == word);
    match found {
        Some(kind) => Ok(Some(kind)),
        None => Err(fields.wrong(
            "type",
            "use `boolean`, `string`, `integer`, `float`, `number` or `object`",
        )),
    }
}

/// The caller's default, which must be of the type that the caller wants; null where there is none.
fn default(fields: &mut Fields<'_>, wanted: Option<Type>) -> Result<Value, ApiError> {
    let value = match fields.take("default") {
        None => return Ok(Value::Null),
        Some(Given::Text(text)) if wanted == Some(Type::String) => Value::String(text.into_owned()),
        Some(Given::Text(text)) => serde_json::from_str(&text).map_err(|error| {
            let reason = format!("is not JSON: {error}; a plain text needs `type=string`");
            fields.wrong("default", reason)
        })?,
        Some(Given::Json(value)) => value,
    };
    match wanted {
        Some(wanted) if !value.is_null() && wanted.fit(&value).is_none() => {
            let reason = format!("is {}, and `type` is `{}`", kind(&value), wanted.as_str());
            Err(fields.wrong("default", reason))
        }
        _ => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fit_their_types_and_no_others() {
        let values = [
            (json!(true), vec!["boolean"]),
            (json!("x"), vec!["string"]),
            (json!(3), vec!["integer", "float", "number"]),
            (json!(-3.0), vec!["integer", "float", "number"]),
            (json!(0.5), vec!["float", "number"]),
            (json!(1e300), vec!["float", "number"]),
            (json!({}), vec!["object"]),
            (json!([1]), vec!["object"]),
            (json!(null), vec![]),
        ];
        for (value, expected) in values {
            let fitting = Type::ALL
                .into_iter()
                .filter(|kind| kind.fit(&value).is_some());
            let fitting: Vec<&str> = fitting.map(Type::as_str).collect();
            assert_eq!(fitting, expected, "{value}");
        }
        assert_eq!(*Type::Integer.fit(&json!(3.0)).unwrap(), json!(3));
    }
}

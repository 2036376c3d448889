//! Runs OpenFeature's Rust SDK and its OFREP provider, unmodified: `ofrep-rust URL TOKEN FLAGS_JSON CONTEXT_JSON`
//!
//! FLAGS_JSON maps a flag's key to the type it is read as. Prints lines of JSON: "details" of all flags, first at once and
//! then again for each line on standard input, until that ends. Such a line is {} or {"context":{…}}, which is the context
//! from then on. A flag that cannot be read has an "error" instead of a value: this SDK knows no defaults.

use std::error::Error;

use open_feature::{
    Client, EvaluationContext, EvaluationContextFieldValue, EvaluationDetails, EvaluationResult,
    OpenFeature, StructValue, Value as FlagValue,
};
use open_feature_ofrep::{OfrepOptions, OfrepProvider};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, stdin};

/// A context as the SDK takes it; of an attribute of any other type its JSON.
fn context(json: &Value) -> EvaluationContext {
    let mut context = EvaluationContext::default();
    for (name, value) in json.as_object().into_iter().flatten() {
        let field: EvaluationContextFieldValue = match value {
            Value::String(text) if name == "targetingKey" => {
                context = context.with_targeting_key(text);
                continue;
            }
            Value::String(text) => text.clone().into(),
            Value::Bool(flag) => (*flag).into(),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => whole.into(),
                (None, double) => double.unwrap_or_default().into(),
            },
            other => other.to_string().into(),
        };
        context.add_custom_field(name, field);
    }
    context
}

fn plain(value: &FlagValue) -> Value {
    match value {
        FlagValue::Bool(value) => json!(value),
        FlagValue::Int(value) => json!(value),
        FlagValue::Float(value) => json!(value),
        FlagValue::String(value) => json!(value),
        FlagValue::Array(values) => values.iter().map(plain).collect(),
        FlagValue::Struct(value) => object(value),
    }
}

fn object(value: &StructValue) -> Value {
    let fields = value.fields.iter();
    Value::Object(
        fields
            .map(|(name, value)| (name.clone(), plain(value)))
            .collect(),
    )
}

fn shown<T: Into<FlagValue>>(found: EvaluationResult<EvaluationDetails<T>>) -> Value {
    match found.map(EvaluationDetails::into_value) {
        Ok(details) => json!({
            "value": plain(&details.value),
            "variant": details.variant,
            "reason": details.reason.map(|reason| reason.to_string()),
        }),
        Err(error) => json!({
            "error": error.code.to_string(),
            "message": error.message,
        }),
    }
}

async fn details(client: &Client, flags: &Map<String, Value>, context: &EvaluationContext) {
    let mut found = Map::new();
    for (key, kind) in flags {
        let with = Some(context);
        let details = match kind.as_str() {
            Some("string") => shown(client.get_string_details(key, with, None).await),
            Some("integer") => shown(client.get_int_details(key, with, None).await),
            Some("float") => shown(client.get_float_details(key, with, None).await),
            Some("object") => {
                let details = client.get_struct_details::<StructValue>(key, with, None);
                shown(details.await)
            }
            _ => shown(client.get_bool_details(key, with, None).await),
        };
        found.insert(key.clone(), details);
    }
    println!("{}", json!({"event": "details", "flags": found}));
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, token, flags, first] = &arguments[..] else {
        return Err("usage: ofrep-rust URL TOKEN FLAGS_JSON CONTEXT_JSON".into());
    };
    let flags: Map<String, Value> = serde_json::from_str(flags)?;
    let mut headers = HeaderMap::new();
    if !token.is_empty() {
        let value = HeaderValue::from_str(&format!("Bearer {token}"))?;
        headers.insert(AUTHORIZATION, value);
    }
    let provider = OfrepProvider::new(OfrepOptions {
        base_url: url.clone(),
        headers,
        ..OfrepOptions::default()
    });
    let provider = provider.await.map_err(|error| format!("{error:?}"))?;
    let client = {
        let mut api = OpenFeature::singleton_mut().await;
        api.set_provider(provider).await;
        api.create_client()
    };
    let mut context_now = context(&serde_json::from_str(first)?);
    details(&client, &flags, &context_now).await;
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let command: Value = serde_json::from_str(&line)?;
        if let Some(given) = command.get("context") {
            context_now = context(given);
        }
        details(&client, &flags, &context_now).await;
    }
    Ok(())
}

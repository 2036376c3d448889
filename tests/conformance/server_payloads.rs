//! Payloads that GrowthBook's server built, with what its SDK makes of them.

use serde_json::{Value, json};
use stitchd::eval::{Compiled, Context, Definitions, Dialect};

use crate::{corpus, decrypt::decrypt};

/// The payload with its encrypted members opened.
fn open(payload: &Value, key: &str) -> Value {
    let mut opened = payload.clone();
    for (encrypted, plain) in [
        ("encryptedFeatures", "features"),
        ("encryptedSavedGroups", "savedGroups"),
    ] {
        if let Some(text) = payload.get(encrypted).and_then(Value::as_str) {
            let text = decrypt(text, key).expect("the key opens it");
            opened[plain] = serde_json::from_str(&text).expect("it holds JSON");
        }
    }
    opened
}

#[test]
fn payloads_of_the_server_evaluate_as_its_sdk_does() {
    let Some(file) = corpus::read("growthbook-server-payloads.json") else {
        return;
    };
    let key = file["decryptionKey"].as_str().expect("a key");
    let (mut checked, mut failures) = (0, Vec::new());
    for named in file["payloads"].as_array().expect("payloads") {
        let payload = open(&named["payload"], key);
        for dialect in [Dialect::Strict, Dialect::Legacy] {
            let compiled = Compiled::new(Definitions::from_payload(&payload), dialect);
            for evaluation in file["evaluations"].as_array().expect("evaluations") {
                let attributes = evaluation["attributes"].as_object().expect("attributes");
                let context = Context::new(attributes);
                for (feature, expected) in evaluation["features"].as_object().expect("features") {
                    let result = compiled.feature(&context, feature, ());
                    let experiment = result.experiment.as_ref().map(|(_, result)| {
                        json!({
                            "value": result.value,
                            "variationId": result.variation_id,
                            "inExperiment": result.in_experiment,
                            "hashUsed": result.hash_used,
                        })
                    });
                    let found = json!({
                        "value": result.value,
                        "on": result.is_on(),
                        "off": !result.is_on(),
                        "source": result.source.as_str(),
                        "experimentResult": experiment,
                    });
                    checked += 1;
                    if !corpus::same(&found, expected) {
                        failures.push(format!("{} {dialect:?} {feature}: {found}", named["name"]));
                    }
                }
            }
        }
    }
    corpus::say(&format!(
        "conformance: server payloads {}/{checked}",
        checked - failures.len()
    ));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(checked, 2 * 6 * 6 * 20);
    for sample in file["invalidEncryptedSavedGroups"]
        .as_array()
        .expect("samples")
    {
        let plain = decrypt(sample.as_str().expect("a text"), key);
        let groups = plain.and_then(|plain| serde_json::from_str::<Value>(&plain).ok());
        assert!(!groups.is_some_and(|groups| groups.is_object()), "{sample}");
    }
}

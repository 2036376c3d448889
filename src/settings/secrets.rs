//! Secrets that may be given as a value or as a file.

use std::{fs, path::PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::Settings;

/// Reads every `x_file` into its `x`. An empty `x` counts as not given.
pub(super) fn resolve(settings: &mut Settings, problems: &mut Vec<String>) {
    let database = &mut settings.database;
    one(
        "database.url",
        &mut database.url,
        database.url_file.as_ref(),
        problems,
    );
    let sticky = &mut settings.sticky_buckets;
    one(
        "sticky_buckets.redis_url",
        &mut sticky.redis_url,
        sticky.redis_url_file.as_ref(),
        problems,
    );
    for (i, token) in settings.admin.tokens.iter_mut().enumerate() {
        let key = format!("admin.tokens[{i}].secret");
        one(
            &key,
            &mut token.secret,
            token.secret_file.as_ref(),
            problems,
        );
    }
    for (i, target) in settings.publish.webhooks.iter_mut().enumerate() {
        let key = format!("publish.webhooks[{i}].secret");
        one(
            &key,
            &mut target.secret,
            target.secret_file.as_ref(),
            problems,
        );
    }
    for source in &mut settings.sources {
        let key = |name: &str| format!("sources.{}.{name}", source.id);
        let (secret, decryption) = (key("secret_key"), key("decryption_key"));
        let webhook = key("webhook_secret");
        one(
            &secret,
            &mut source.secret_key,
            source.secret_key_file.as_ref(),
            problems,
        );
        one(
            &decryption,
            &mut source.decryption_key,
            source.decryption_key_file.as_ref(),
            problems,
        );
        one(
            &webhook,
            &mut source.webhook_secret,
            source.webhook_secret_file.as_ref(),
            problems,
        );
        connections(source, problems);
    }
}

/// The secrets of a source's connections.
fn connections(source: &mut super::Source, problems: &mut Vec<String>) {
    let id = &source.id;
    if let super::Connections::List(list) = &mut source.connections {
        for (i, c) in list.iter_mut().enumerate() {
            let key = |name| format!("sources.{id}.connections[{i}].{name}");
            let (decryption, push) = (key("decryption_key"), key("push_signing_key"));
            one(
                &decryption,
                &mut c.decryption_key,
                c.decryption_key_file.as_ref(),
                problems,
            );
            one(
                &push,
                &mut c.push_signing_key,
                c.push_signing_key_file.as_ref(),
                problems,
            );
        }
    }
}

fn one(
    key: &str,
    value: &mut Option<SecretString>,
    file: Option<&PathBuf>,
    problems: &mut Vec<String>,
) {
    if value
        .as_ref()
        .is_some_and(|text| text.expose_secret().is_empty())
    {
        *value = None;
    }
    let Some(file) = file.filter(|path| !path.as_os_str().is_empty()) else {
        return;
    };
    if value.is_some() {
        problems.push(format!(
            "`{key}` and `{key}_file` are both set; keep one of them"
        ));
        return;
    }
    match fs::read_to_string(file) {
        Ok(text) if text.trim().is_empty() => {
            problems.push(format!(
                "`{key}_file` names {}, which is empty",
                file.display()
            ));
        }
        Ok(text) => *value = Some(SecretString::from(text.trim().to_owned())),
        Err(error) => problems.push(format!(
            "`{key}_file` names {}, which cannot be read: {error}",
            file.display()
        )),
    }
}

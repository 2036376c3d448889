//! Connections that were discovered, as they are kept: with their encryption keys, so that after a restart an encrypted
//! document can be written anew before anybody can be asked for them.
//!
//! Each source has a register beside those of operators' decisions. Replicas that share a source write the same. A key that
//! the settings give stays there.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    ConfigLinks, ConfigMemory,
    job::{JobError, STORE_LIMIT},
    memory::{Accepted, FunnelSource},
    relay,
};
use crate::{
    actors::store::{LoadRegisters, SaveRegisters},
    settings::Connection,
};

/// How their registers begin; the source follows.
const CONNECTIONS: &str = "connections:";

/// What is kept already, by source; locked for moments only.
pub(super) type Kept = Mutex<BTreeMap<Arc<str>, Arc<Vec<Connection>>>>;

/// A connection as kept; a newer release may keep more of it.
#[derive(Serialize, Deserialize)]
struct Stored {
    key: String,
    decryption_key: Option<String>,
    #[serde(default)]
    remote_eval: bool,
}

/// The connections of a source after a restart: those of the settings, else those that were kept.
pub(super) async fn restore(
    memory: &ConfigMemory,
    links: &ConfigLinks,
    source: &FunnelSource,
) -> Result<Arc<Vec<Connection>>, JobError> {
    if !source.discovers() {
        return Ok(Arc::clone(&source.listed));
    }
    let question = LoadRegisters {
        environment: Arc::clone(&source.environment),
    };
    let registers = links.store.ask_again(question, STORE_LIMIT).await?;
    let own = source.decryption_key.as_ref();
    let stored = registers.get(&register_of(&source.id));
    let Some(found) = stored.and_then(|stored| read(stored, own)) else {
        return Ok(Arc::clone(&source.listed));
    };
    let found = Arc::new(found);
    let known = Arc::clone(&found);
    memory.kept.lock().insert(Arc::clone(&source.id), known);
    Ok(found)
}

/// Keeps the connections of a source that discovers them, where they differ from those kept. Tried again with the next
/// input where neither database nor backup takes them in time.
pub(super) async fn keep(
    memory: &ConfigMemory,
    links: &ConfigLinks,
    source: &FunnelSource,
    accepted: &Accepted,
) -> Result<(), JobError> {
    let connections = &accepted.connections;
    let kept = memory.kept.lock().get(&source.id).cloned();
    let is_kept = kept.is_some_and(|kept| relay::is_same(&kept, connections));
    if is_kept || connections.is_empty() || !source.discovers() {
        return Ok(());
    }
    let save = SaveRegisters {
        environment: Arc::clone(&source.environment),
        changes: vec![(
            register_of(&source.id),
            Some(value_of(connections, source.decryption_key.as_ref())),
        )],
        ended: Vec::new(),
    };
    if links.store.ask_again(save, STORE_LIMIT).await? {
        let known = Arc::clone(connections);
        memory.kept.lock().insert(Arc::clone(&source.id), known);
    }
    Ok(())
}

fn register_of(source: &str) -> String {
    format!("{CONNECTIONS}{source}")
}

/// `own` is the key of the settings.
fn value_of(connections: &[Connection], own: Option<&SecretString>) -> Value {
    let own = own.map(ExposeSecret::expose_secret);
    let stored = connections.iter().map(|connection| {
        let decryption_key = connection.decryption_key.as_ref();
        let decryption_key = decryption_key.filter(|key| Some(key.expose_secret()) != own);
        Stored {
            key: connection.key.clone(),
            decryption_key: decryption_key.map(|text| text.expose_secret().to_owned()),
            remote_eval: connection.remote_eval,
        }
    });
    let stored: Vec<Stored> = stored.collect();
    serde_json::to_value(stored).expect("a connection has string keys only")
}

/// `None`: it cannot be read; then they are not known before the next poll.
fn read(value: &Value, own: Option<&SecretString>) -> Option<Vec<Connection>> {
    let stored = Vec::<Stored>::deserialize(value).ok()?;
    let connections = stored.into_iter().map(|stored| Connection {
        key: stored.key,
        decryption_key: stored
            .decryption_key
            .map(Into::into)
            .or_else(|| own.cloned()),
        remote_eval: stored.remote_eval,
        ..Connection::default()
    });
    Some(connections.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn connections_come_back_with_their_keys() {
        let connections = [
            Connection {
                key: "sdk-a".to_owned(),
                decryption_key: Some("a2V5".into()),
                ..Connection::default()
            },
            Connection {
                key: "sdk-b".to_owned(),
                remote_eval: true,
                ..Connection::default()
            },
        ];
        let kept = read(&value_of(&connections, None), None).unwrap();
        assert!(relay::is_same(&kept, &connections));
    }

    #[test]
    fn a_key_of_the_settings_is_not_kept() {
        let own = SecretString::from("b3du");
        let connection = |key: &SecretString| Connection {
            key: "sdk-a".to_owned(),
            decryption_key: Some(key.clone()),
            ..Connection::default()
        };
        let value = value_of(&[connection(&own)], Some(&own));
        assert!(!value.to_string().contains("b3du"));
        let rotated = SecretString::from("bmV3");
        let found = read(&value, Some(&rotated)).unwrap();
        assert!(relay::is_same(&found, &[connection(&rotated)]));
    }

    #[test]
    fn what_a_newer_release_kept_is_read_and_what_is_none_of_ours_is_not() {
        let newer = json!([{"key": "sdk-a", "decryption_key": null, "more": 1}]);
        assert_eq!(read(&newer, None).unwrap()[0].key, "sdk-a");
        assert!(read(&json!({"later": 1}), None).is_none());
    }
}

//! What a start finds: the better of database and backup, and which of them has to catch up.
//!
//! Both are asked at the same time. Where the backup can serve, the database gets [`DATABASE_GRACE`] and no more: a start
//! must not wait for a server that is away. What it would have said is learnt later, when it takes the first write.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

use super::{
    Backup, Database, EnvironmentState, FoundSnapshot, Generation, PackedInput, Registers,
    StoreError, StoreRuntime, StoredInput, StoredRevision, StoredState, packed, runtime,
};

/// How long the database is waited for when the backup has something to serve.
const DATABASE_GRACE: Duration = Duration::from_millis(500);

/// How many revisions of the database are tried when the newest are corrupt.
const REVISIONS_TRIED: usize = 3;

/// How one of the two copies stands to what was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It has it.
    InStep,
    /// It lacks it, or has something older or harmed: write it there.
    Behind,
    /// It did not answer.
    Unknown,
}

/// Everything that a start finds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Every environment that was asked for, by name.
    pub environments: BTreeMap<String, LoadedEnvironment>,
    /// The last accepted inputs, by source.
    pub inputs: BTreeMap<String, LoadedInput>,
    /// What is remembered, by source.
    pub states: BTreeMap<String, LoadedState>,
    /// What operators decided, by environment.
    pub registers: BTreeMap<String, LoadedRegisters>,
    /// Why the database did not answer; `None`: it did.
    pub database_failure: Option<StoreError>,
    /// Why the backup cannot be read at all; `None`: it can, or is empty.
    pub backup_failure: Option<StoreError>,
    /// Lines for the log: what was passed over.
    pub notes: Vec<String>,
}

/// What a start finds of an environment.
#[derive(Debug)]
pub struct LoadedEnvironment {
    /// The newest revision that can be read; `None`: never published, or nothing readable.
    pub current: Option<StoredRevision>,
    /// The highest number seen on either side, readable or not; 0: none. The next one is free.
    pub highest: u64,
    /// Where the database stands.
    pub database: Side,
    /// Where the backup stands.
    pub backup: Side,
    /// Whether the two have different content under the current number, as when two replicas published while the database
    /// was away. The database's is current; the other was served under the same number, so publish it anew.
    pub is_diverged: bool,
    /// What the backup has, oldest first: the database may lack any of them.
    pub generations: Vec<Generation>,
}

/// A source's last accepted input.
#[derive(Debug)]
pub struct LoadedInput {
    /// The input.
    pub input: StoredInput,
    /// The same, packed.
    pub packed: PackedInput,
    /// Where the database stands.
    pub database: Side,
    /// Where the backup stands.
    pub backup: Side,
}

/// What is remembered about a source.
#[derive(Debug)]
pub struct LoadedState {
    /// The state.
    pub state: StoredState,
    /// Where the database stands.
    pub database: Side,
    /// Where the backup stands.
    pub backup: Side,
}

/// What operators decided about an environment: what both sides say, merged.
#[derive(Debug)]
pub struct LoadedRegisters {
    /// With the version of the database's row; 0: none is known.
    pub state: EnvironmentState,
    /// Where the database stands.
    pub database: Side,
    /// Where the backup stands.
    pub backup: Side,
}

/// All of one side.
#[derive(Default)]
struct Contents {
    snapshots: BTreeMap<String, FoundSnapshot>,
    inputs: BTreeMap<String, (PackedInput, StoredInput)>,
    states: BTreeMap<String, StoredState>,
    registers: BTreeMap<String, EnvironmentState>,
    notes: Vec<String>,
}

/// Asks both sides and merges what they say.
pub(super) async fn load(
    runtime: StoreRuntime,
    database: Database,
    backup: Backup,
    environments: Vec<String>,
) -> Loaded {
    let started = Instant::now();
    let patience = database.patience();
    let asking = from_database(runtime.clone(), database, environments.clone());
    let mut asking = runtime.spawn(asking);
    let on_disk = from_backup(&backup, &environments).await;
    let can_serve = on_disk.as_ref().is_ok_and(Contents::can_serve);
    let limit = if can_serve { DATABASE_GRACE } else { patience };
    let in_database = match timeout_at(started + limit, &mut asking).await {
        Ok(Ok(contents)) => contents,
        Ok(Err(error)) => Err(runtime::stopped(error)),
        Err(_elapsed) => Err(StoreError::timed_out(limit)),
    };
    merge(environments, in_database, on_disk)
}

impl Contents {
    fn can_serve(&self) -> bool {
        self.snapshots
            .values()
            .any(|found| found.revision.is_some())
    }
}

async fn from_backup(backup: &Backup, environments: &[String]) -> Result<Contents, StoreError> {
    let mut contents = Contents::default();
    for environment in environments {
        let found = backup.load_snapshot(environment).await?;
        contents.notes.extend(found.notes);
        let snapshots = &mut contents.snapshots;
        snapshots.insert(environment.clone(), found.value);
    }
    let inputs = backup.load_inputs().await?;
    contents.notes.extend(inputs.notes);
    contents.inputs = inputs.value;
    let states = backup.load_states().await?;
    contents.notes.extend(states.notes);
    contents.states = states.value;
    let registers = backup.load_registers().await?;
    contents.notes.extend(registers.notes);
    let state = |(name, registers)| {
        let state = EnvironmentState {
            version: 0,
            registers,
        };
        (name, state)
    };
    contents.registers = registers.value.into_iter().map(state).collect();
    Ok(contents)
}

async fn from_database(
    runtime: StoreRuntime,
    database: Database,
    environments: Vec<String>,
) -> Result<Contents, StoreError> {
    let mut contents = Contents::default();
    for environment in environments {
        let notes = &mut contents.notes;
        let found = newest_readable(&runtime, &database, &environment, notes).await?;
        contents.snapshots.insert(environment, found);
    }
    for packed in database.load_inputs().await? {
        let source = packed.source.clone();
        let unpack = move || packed.unpack().map(|input| (packed, input));
        match runtime.run_blocking(unpack).await {
            Ok(input) => {
                contents.inputs.insert(source, input);
            }
            Err(error) => {
                let note = format!(
                    "passed over the database's input of `{source}`: {}",
                    error.explain()
                );
                contents.notes.push(note);
            }
        }
    }
    let states = database.load_states().await?.into_iter();
    contents.states = states.map(|state| (state.source.clone(), state)).collect();
    let (registers, notes) = database.load_all_registers().await?;
    contents.registers = registers;
    contents.notes.extend(notes);
    Ok(contents)
}

async fn newest_readable(
    runtime: &StoreRuntime,
    database: &Database,
    environment: &str,
    notes: &mut Vec<String>,
) -> Result<FoundSnapshot, StoreError> {
    let mut found = FoundSnapshot::default();
    let mut bound = u64::MAX;
    for _ in 0..REVISIONS_TRIED {
        let Some(row) = database.revision_up_to(environment, bound).await? else {
            break;
        };
        let revision = row.revision;
        found.highest = found.highest.max(Some(revision));
        let unpack = move || {
            let candidate = packed::unpack_candidate(&row.environment, &row.body)?;
            Ok(StoredRevision {
                revision,
                candidate,
                packed: row.body,
            })
        };
        match runtime.run_blocking(unpack).await {
            Ok(stored) => {
                found.revision = Some(stored);
                break;
            }
            Err(error) => notes.push(format!(
                "passed over revision {revision} of `{environment}` in the database: {}",
                error.explain()
            )),
        }
        let Some(next) = revision.checked_sub(1) else {
            break;
        };
        bound = next;
    }
    Ok(found)
}

fn merge(
    environments: Vec<String>,
    in_database: Result<Contents, StoreError>,
    on_disk: Result<Contents, StoreError>,
) -> Loaded {
    let mut loaded = Loaded::default();
    let is_known = (in_database.is_ok(), on_disk.is_ok());
    let mut database = in_database.unwrap_or_else(|error| {
        loaded.database_failure = Some(error);
        Contents::default()
    });
    let mut backup = on_disk.unwrap_or_else(|error| {
        loaded.backup_failure = Some(error);
        Contents::default()
    });
    for name in environments {
        let found = database.snapshots.remove(&name).unwrap_or_default();
        let copy = backup.snapshots.remove(&name).unwrap_or_default();
        let environment = merge_environment(found, copy, is_known);
        loaded.environments.insert(name, environment);
    }
    for (source, found, copy) in pairs(database.inputs, backup.inputs) {
        let newer = newer(found, copy, |(packed, _)| {
            (packed.accepted_at_ms, &packed.digest)
        });
        if let Some(((packed, input), holders)) = newer {
            let (database, backup) = sides(is_known, holders);
            let input = LoadedInput {
                input,
                packed,
                database,
                backup,
            };
            loaded.inputs.insert(source, input);
        }
    }
    for (source, found, copy) in pairs(database.states, backup.states) {
        let newer = newer(found, copy, |state| (state.updated_at_ms, &state.body));
        if let Some((state, holders)) = newer {
            let (database, backup) = sides(is_known, holders);
            let state = LoadedState {
                state,
                database,
                backup,
            };
            loaded.states.insert(source, state);
        }
    }
    for (name, found, copy) in pairs(database.registers, backup.registers) {
        let registers = merge_registers(found.as_ref(), copy.as_ref(), is_known);
        loaded.registers.insert(name, registers);
    }
    loaded.notes = database.notes;
    loaded.notes.append(&mut backup.notes);
    loaded
}

fn merge_environment(
    found: FoundSnapshot,
    copy: FoundSnapshot,
    is_known: (bool, bool),
) -> LoadedEnvironment {
    let highest = found.highest.max(copy.highest).unwrap_or_default();
    let generations = copy.generations;
    let numbers = [&found.revision, &copy.revision].map(|r| r.as_ref().map(|r| r.revision));
    let newer = newer(found.revision, copy.revision, |stored| {
        (stored.revision, &stored.candidate.hash)
    });
    let Some((current, (_, is_on_disk))) = newer else {
        let (database, backup) = sides(is_known, (true, true));
        return LoadedEnvironment {
            current: None,
            highest,
            database,
            backup,
            is_diverged: false,
            generations,
        };
    };
    // A number that the database knows cannot be written there again, even where its bytes are harmed.
    let is_in_database = found.highest >= Some(current.revision);
    let (database, backup) = sides(is_known, (is_in_database, is_on_disk));
    LoadedEnvironment {
        highest,
        database,
        backup,
        is_diverged: numbers[0] == numbers[1] && !is_on_disk,
        current: Some(current),
        generations,
    }
}

fn merge_registers(
    found: Option<&EnvironmentState>,
    copy: Option<&EnvironmentState>,
    is_known: (bool, bool),
) -> LoadedRegisters {
    let copy = copy.map(|copy| &copy.registers);
    let mut state = found.cloned().unwrap_or_default();
    state.registers.merge(copy.cloned().unwrap_or_default());
    let holds = |side: Option<&Registers>| side == Some(&state.registers);
    let holders = (holds(found.map(|found| &found.registers)), holds(copy));
    let (database, backup) = sides(is_known, holders);
    LoadedRegisters {
        state,
        database,
        backup,
    }
}

/// The newer of two and who holds it: (database, backup). Of two different ones of the same age the database's, which all
/// replicas share.
fn newer<T, K: Ord>(
    found: Option<T>,
    copy: Option<T>,
    rank: impl Fn(&T) -> (K, &String),
) -> Option<(T, (bool, bool))> {
    let (found, copy) = match (found, copy) {
        (Some(found), Some(copy)) => (found, copy),
        (Some(found), None) => return Some((found, (true, false))),
        (None, Some(copy)) => return Some((copy, (false, true))),
        (None, None) => return None,
    };
    let is_same = rank(&found) == rank(&copy);
    let is_copy_newer = rank(&copy).0 > rank(&found).0;
    Some(if is_copy_newer {
        (copy, (false, true))
    } else {
        (found, (true, is_same))
    })
}

fn sides(is_known: (bool, bool), holds: (bool, bool)) -> (Side, Side) {
    let side = |is_known, holds| match (is_known, holds) {
        (false, _) => Side::Unknown,
        (true, true) => Side::InStep,
        (true, false) => Side::Behind,
    };
    (side(is_known.0, holds.0), side(is_known.1, holds.1))
}

/// Every key of either map with what each holds under it.
fn pairs<T>(
    mut found: BTreeMap<String, T>,
    mut copies: BTreeMap<String, T>,
) -> Vec<(String, Option<T>, Option<T>)> {
    let keys: BTreeSet<String> = found.keys().chain(copies.keys()).cloned().collect();
    keys.into_iter()
        .map(|key| {
            let (found, copy) = (found.remove(&key), copies.remove(&key));
            (key, found, copy)
        })
        .collect()
}

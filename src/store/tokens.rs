//! Tokens at rest: a row each in the database, all of them in one file of the backup.
//!
//! Every write of a row takes the next version, of which there is one sequence for all tokens: a replica knows from the
//! highest one whether there is news, and reads only what is behind the version that it has seen. Two writers cannot get the
//! same version, and a version cannot become visible before the one below it. Who is slower reads again and tries once more.
//! In the backup a version of 0 marks what the database lacks.

use std::{collections::HashMap, sync::Arc};

use sea_orm::{
    ActiveModelTrait as _, ActiveValue::Set, ColumnTrait as _, Condition, DatabaseConnection,
    DbErr, EntityTrait as _, IntoActiveModel as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};

use super::{
    Backup, Database, Found, StoreError,
    database::fit,
    entity::tokens::{ActiveModel, Column, Entity, Model},
    revisions::is_duplicate,
};
use crate::model::{
    Dialect, Projects, Scope, Token, TokenId, TokenKind,
    snapshot::hex,
    token::{Former, Verifier},
};

/// Rows read at once.
const PAGE_ROWS: u64 = 2000;
/// Tokens written at once: fifteen columns each, and `SQLite` takes 32,766 values in a statement.
pub const TOKENS_PER_WRITE: usize = 500;
/// About what a row takes in a statement, in bytes, its projects aside.
const ROW_BYTES: usize = 600;

/// A token and the version of its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredToken {
    /// The token.
    pub token: Token,
    /// Version of its row; 0: the database does not have it as it is here.
    pub version: i64,
}

/// The tokens of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBackup {
    /// All of them, as they were then.
    pub tokens: Vec<StoredToken>,
    /// When it was written, as Unix milliseconds.
    pub written_at_ms: i64,
}

/// Tokens behind a version.
#[derive(Clone, Debug, Default)]
pub struct TokenPage {
    /// In the order of their versions.
    pub tokens: Vec<StoredToken>,
    /// Where to go on.
    pub version: i64,
    /// Whether there is more.
    pub has_more: bool,
    /// One line for each row that cannot be read, for the log.
    pub notes: Vec<String>,
}

impl Database {
    /// The highest version; 0: there are no tokens.
    pub async fn tokens_version(&self) -> Result<i64, StoreError> {
        self.run(0, |db| async move { highest(&db).await }).await
    }

    /// The next tokens behind a version.
    pub async fn tokens_after(&self, version: i64) -> Result<TokenPage, StoreError> {
        let rows = self.run(0, move |db| async move {
            let page = Entity::find()
                .filter(Column::Version.gt(version))
                .order_by_asc(Column::Version)
                .limit(PAGE_ROWS);
            page.all(&db).await
        });
        let rows = rows.await?;
        let mut page = TokenPage {
            version: rows.last().map_or(version, |row| row.version),
            has_more: rows.len() as u64 == PAGE_ROWS,
            ..TokenPage::default()
        };
        for row in rows {
            match read(&row) {
                Ok(token) => page.tokens.push(token),
                Err(error) => page.notes.push(format!("passed over: {}", error.explain())),
            }
        }
        Ok(page)
    }

    /// Writes at most [`TOKENS_PER_WRITE`] tokens, each merged with what another replica wrote of it, and gives them as they
    /// are stored; `None`: another replica was faster, so try again.
    pub async fn save_tokens(
        &self,
        tokens: Vec<Token>,
    ) -> Result<Option<Vec<StoredToken>>, StoreError> {
        let projects = tokens.iter().map(|token| projects_text(token).len());
        let bytes = tokens.len() * ROW_BYTES + projects.sum::<usize>();
        let saved = self.run(bytes, move |db| async move {
            match save(&db, tokens).await {
                Err(error) if is_duplicate(&error) => Ok(None),
                done => done,
            }
        });
        let Some(rows) = saved.await? else {
            return Ok(None);
        };
        rows.iter().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// Deletes tokens that have not counted since a moment, in Unix milliseconds; but for the one with the highest version,
    /// which must not be given twice.
    pub async fn delete_tokens(&self, ended_before_ms: i64) -> Result<u64, StoreError> {
        self.run(0, move |db| async move {
            let highest = highest(&db).await?;
            let ended = Condition::any()
                .add(Column::RevokedAtMs.lt(ended_before_ms))
                .add(Column::ExpiresAtMs.lt(ended_before_ms));
            let delete = Entity::delete_many()
                .filter(ended)
                .filter(Column::Version.lt(highest));
            Ok(delete.exec(&db).await?.rows_affected)
        })
        .await
    }
}

impl Backup {
    /// Writes all tokens.
    pub async fn write_tokens(
        &self,
        tokens: Vec<StoredToken>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let encode = move || {
            let rows: Vec<Model> = tokens.iter().map(row).collect();
            drop(tokens);
            serde_json::to_vec(&rows).expect("texts and numbers always serialise")
        };
        self.write_token_file(encode, now_ms).await
    }

    /// All tokens of the newest file that can be read; `None`: there is none.
    pub async fn load_tokens(&self) -> Result<Found<Option<TokenBackup>>, StoreError> {
        self.read_token_file(|written_at_ms, body| {
            let corrupt =
                |problem: String| StoreError::corrupt("the backup of the tokens", problem);
            let rows: Vec<Model> =
                serde_json::from_slice(body).map_err(|error| corrupt(error.to_string()))?;
            Ok(TokenBackup {
                tokens: rows.iter().map(read).collect::<Result<_, _>>()?,
                written_at_ms,
            })
        })
        .await
    }
}

async fn highest(db: &DatabaseConnection) -> Result<i64, DbErr> {
    let highest: Option<Option<i64>> = Entity::find()
        .select_only()
        .column_as(Column::Version.max(), "highest")
        .into_tuple()
        .one(db)
        .await?;
    Ok(highest.flatten().unwrap_or(0))
}

async fn save(db: &DatabaseConnection, tokens: Vec<Token>) -> Result<Option<Vec<Model>>, DbErr> {
    let ids = tokens.iter().map(|token| token.id.to_string());
    let known = Entity::find().filter(Column::Id.is_in(ids)).all(db).await?;
    let mut known: HashMap<String, Model> =
        known.into_iter().map(|row| (row.id.clone(), row)).collect();
    let mut version = highest(db).await?;
    let (mut new, mut saved) = (Vec::new(), Vec::new());
    for token in tokens {
        let Some(there) = known.remove(&token.id.to_string()) else {
            new.push(token);
            continue;
        };
        // What cannot be read is replaced.
        let token = match read(&there) {
            Ok(stored) => token.merged(stored.token),
            Err(_) => token,
        };
        version += 1;
        let merged = row(&StoredToken { token, version });
        let update = Entity::update_many()
            .set(changes(merged.clone()))
            .filter(Column::Id.eq(&there.id))
            .filter(Column::Version.eq(there.version));
        if update.exec(db).await?.rows_affected == 0 {
            return Ok(None);
        }
        saved.push(merged);
    }
    // Numbered last, as they are written last: nobody may see a version before the one below it.
    let mut new: Vec<Model> = (version + 1..)
        .zip(new)
        .map(|(version, token)| row(&StoredToken { token, version }))
        .collect();
    if !new.is_empty() {
        let rows = new.iter().cloned().map(ActiveModel::from_row);
        let insert = Entity::insert_many(rows);
        insert.exec_without_returning(db).await?;
    }
    saved.append(&mut new);
    Ok(Some(saved))
}

impl ActiveModel {
    /// Every column, to be written.
    fn from_row(row: Model) -> Self {
        row.into_active_model().reset_all()
    }
}

/// Every column but the id.
fn changes(row: Model) -> ActiveModel {
    ActiveModel {
        id: sea_orm::ActiveValue::NotSet,
        version: Set(row.version),
        ..ActiveModel::from_row(row)
    }
}

fn projects_text(token: &Token) -> String {
    let names = token.scope.projects.names();
    serde_json::to_string(&names).expect("a list of texts always serialises")
}

fn row(stored: &StoredToken) -> Model {
    let token = &stored.token;
    let former = token.former.as_ref();
    Model {
        id: token.id.to_string(),
        version: stored.version,
        kind: token.kind.as_str().to_owned(),
        environment: token.scope.environment.to_string(),
        projects: projects_text(token),
        dialect: token.dialect.map(|dialect| dialect.as_str().to_owned()),
        rate_class: token.rate_class.as_ref().map(ToString::to_string),
        created_by: fit(&token.created_by, 128),
        created_at_ms: token.created_at_ms,
        changed_at_ms: token.changed_at_ms,
        expires_at_ms: token.expires_at_ms,
        revoked_at_ms: token.revoked_at_ms,
        verifier: hex(&token.verifier),
        former_verifier: former.map(|former| hex(&former.verifier)),
        former_until_ms: former.map(|former| former.until_ms),
    }
}

fn read(row: &Model) -> Result<StoredToken, StoreError> {
    let corrupt = |what: &str| StoreError::corrupt(format!("token `{}`", row.id), what.to_owned());
    let names: Vec<String> =
        serde_json::from_str(&row.projects).map_err(|error| corrupt(&error.to_string()))?;
    let projects = Projects::from_names(names.iter().map(String::as_str));
    let scope = Scope {
        environment: row.environment.as_str().into(),
        projects: projects.ok_or_else(|| corrupt("it has no project"))?,
    };
    let former = match (&row.former_verifier, row.former_until_ms) {
        (Some(verifier), Some(until_ms)) => Some(Box::new(Former {
            verifier: read_verifier(verifier).ok_or_else(|| corrupt("an odd former hash"))?,
            until_ms,
        })),
        _ => None,
    };
    let token = Token {
        id: TokenId::parse(&row.id).ok_or_else(|| corrupt("an odd id"))?,
        kind: TokenKind::from_word(&row.kind).ok_or_else(|| corrupt("an unknown kind"))?,
        scope: Arc::new(scope),
        dialect: row.dialect.as_deref().and_then(Dialect::from_word),
        rate_class: row.rate_class.as_deref().map(Into::into),
        created_by: row.created_by.as_str().into(),
        created_at_ms: row.created_at_ms,
        changed_at_ms: row.changed_at_ms,
        expires_at_ms: row.expires_at_ms,
        revoked_at_ms: row.revoked_at_ms,
        verifier: read_verifier(&row.verifier).ok_or_else(|| corrupt("an odd hash"))?,
        former,
    };
    Ok(StoredToken {
        token,
        version: row.version,
    })
}

fn read_verifier(text: &str) -> Option<Verifier> {
    let mut verifier = Verifier::default();
    if text.len() != 2 * verifier.len() || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in verifier.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(verifier)
}

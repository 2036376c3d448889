//! One published revision of one environment.

use sea_orm::entity::prelude::*;

/// One published revision of one environment.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "revisions")]
pub struct Model {
    /// Row number; carries no meaning.
    #[sea_orm(primary_key)]
    pub id: i64,
    /// Environment name.
    pub environment: String,
    /// Number within the environment.
    pub revision: i64,
    /// Hex SHA-256 over everything served.
    pub hash: String,
    /// What made it.
    pub cause: String,
    /// Number of features.
    pub features: i64,
    /// Number of experiments.
    pub experiments: i64,
    /// Identity bytes of all documents.
    pub size_bytes: i64,
    /// When it was made, as Unix milliseconds.
    pub published_at_ms: i64,
    /// The packed candidate.
    pub body: Vec<u8>,
    /// Name of the operator's token.
    pub author: Option<String>,
    /// The operator's words.
    pub reason: Option<String>,
    /// The revision whose content it has.
    pub pinned_from: Option<i64>,
    /// Issues that are errors; null in rows of older releases.
    pub errors: Option<i64>,
    /// Issues that are warnings.
    pub warnings: Option<i64>,
    /// JSON: each source with the digest of its input and when that was accepted, or null.
    pub sources: Option<String>,
}

/// None: the tables stand alone.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

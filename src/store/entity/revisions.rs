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
}

/// None: the tables stand alone.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

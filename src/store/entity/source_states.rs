//! What is remembered about a source beside its input.

use sea_orm::entity::prelude::*;

/// What is remembered about a source beside its input.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "source_states")]
pub struct Model {
    /// Source id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub source: String,
    /// When it was written, as Unix milliseconds.
    pub updated_at_ms: i64,
    /// JSON, opaque here.
    pub body: String,
}

/// None: the tables stand alone.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

//! A source's last accepted input.

use sea_orm::entity::prelude::*;

/// A source's last accepted input.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "source_inputs")]
pub struct Model {
    /// Source id.
    #[sea_orm(primary_key, auto_increment = false)]
    pub source: String,
    /// Hash of the input, made by whoever accepted it.
    pub digest: String,
    /// When it was accepted, as Unix milliseconds.
    pub accepted_at_ms: i64,
    /// The packed input.
    pub body: Vec<u8>,
}

/// None: the tables stand alone.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

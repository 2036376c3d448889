//! What a unit was given in experiments.

use sea_orm::entity::prelude::*;

/// What a unit was given in experiments.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "sticky_buckets")]
pub struct Model {
    /// SHA-256 of the unit's key, in hexadecimal.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// When it was written, as Unix milliseconds.
    pub updated_at_ms: i64,
    /// GrowthBook's document, as JSON.
    pub document: String,
}

/// None: the tables stand alone.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

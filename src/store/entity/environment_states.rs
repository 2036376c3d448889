//! What operators decided about an environment.

use sea_orm::entity::prelude::*;

/// What operators decided about an environment.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "environment_states")]
pub struct Model {
    /// Environment name.
    #[sea_orm(primary_key, auto_increment = false)]
    pub environment: String,
    /// Rises with each write.
    pub version: i64,
    /// When it was written, as Unix milliseconds.
    pub updated_at_ms: i64,
    /// [`crate::store::Registers`] as JSON.
    pub body: String,
}

/// None: the tables stand alone.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

//! One thing that somebody did.

use sea_orm::entity::prelude::*;

/// One thing that somebody did.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_entries")]
pub struct Model {
    /// Row number: the order in which entries arrived.
    #[sea_orm(primary_key)]
    pub id: i64,
    /// Id of the entry itself: written twice, it is kept once.
    pub uid: String,
    /// When, as Unix milliseconds.
    pub at_ms: i64,
    /// Who.
    pub actor: String,
    /// With which role.
    pub role: String,
    /// What.
    pub action: String,
    /// To what.
    pub target: String,
    /// Why, as they said.
    pub reason: Option<String>,
    /// How it ended.
    pub result: String,
}

/// None: the tables stand alone.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

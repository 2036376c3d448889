//! A token, without its secret.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

/// A token, without its secret; also as the backup keeps it.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, Deserialize)]
#[sea_orm(table_name = "tokens")]
pub struct Model {
    /// Its selector.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Of all tokens; each write takes the next number.
    #[sea_orm(unique)]
    pub version: i64,
    /// `client`, `server` or `frontend`.
    pub kind: String,
    /// Environment name.
    pub environment: String,
    /// A JSON list of project ids.
    pub projects: String,
    /// `strict` or `legacy`.
    pub dialect: Option<String>,
    /// Name of a limit in the settings.
    pub rate_class: Option<String>,
    /// Name of the admin token that made it.
    pub created_by: String,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Unix milliseconds of the last change.
    pub changed_at_ms: i64,
    /// Unix milliseconds.
    pub expires_at_ms: Option<i64>,
    /// Unix milliseconds.
    pub revoked_at_ms: Option<i64>,
    /// Hexadecimal SHA-256 of the secret.
    pub verifier: String,
    /// The same of the secret before the last rotation.
    pub former_verifier: Option<String>,
    /// Unix milliseconds until which that one counts.
    pub former_until_ms: Option<i64>,
}

/// None: the tables stand alone.
#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

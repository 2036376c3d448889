//! What operators decided about an environment: pins, overrides.

use sea_orm_migration::{
    prelude::*,
    schema::{big_integer, string_len},
};

use crate::columns;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum EnvironmentStates {
    Table,
    Environment,
    Version,
    UpdatedAtMs,
    Body,
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "`async_trait` takes a spelt-out `'_` for another signature than the trait's"
)]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = columns::table(manager, EnvironmentStates::Table);
        table
            .col(string_len(EnvironmentStates::Environment, 64).primary_key())
            .col(big_integer(EnvironmentStates::Version))
            .col(big_integer(EnvironmentStates::UpdatedAtMs))
            .col(columns::long_text(manager, EnvironmentStates::Body).not_null());
        manager.create_table(table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = Table::drop();
        manager
            .drop_table(table.table(EnvironmentStates::Table).if_exists().take())
            .await
    }
}

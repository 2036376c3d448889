//! Tokens of clients: one row each, without their secrets.

use sea_orm_migration::{
    prelude::*,
    schema::{big_integer, big_integer_null, string_len, string_len_null},
};

use crate::columns;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Tokens {
    Table,
    Id,
    Version,
    Kind,
    Environment,
    Projects,
    Dialect,
    RateClass,
    CreatedBy,
    CreatedAtMs,
    ChangedAtMs,
    ExpiresAtMs,
    RevokedAtMs,
    Verifier,
    FormerVerifier,
    FormerUntilMs,
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "`async_trait` takes a spelt-out `'_` for another signature than the trait's"
)]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = columns::table(manager, Tokens::Table);
        table
            .col(string_len(Tokens::Id, 22).primary_key())
            // Of all tokens; each write takes the next number, so that replicas read only what is new.
            .col(big_integer(Tokens::Version).unique_key())
            .col(string_len(Tokens::Kind, 16))
            .col(string_len(Tokens::Environment, 64))
            .col(columns::long_text(manager, Tokens::Projects).not_null())
            .col(string_len_null(Tokens::Dialect, 16))
            .col(string_len_null(Tokens::RateClass, 64))
            .col(string_len(Tokens::CreatedBy, 128))
            .col(big_integer(Tokens::CreatedAtMs))
            .col(big_integer(Tokens::ChangedAtMs))
            .col(big_integer_null(Tokens::ExpiresAtMs))
            .col(big_integer_null(Tokens::RevokedAtMs))
            .col(string_len(Tokens::Verifier, 64))
            .col(string_len_null(Tokens::FormerVerifier, 64))
            .col(big_integer_null(Tokens::FormerUntilMs));
        manager.create_table(table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = Table::drop();
        manager
            .drop_table(table.table(Tokens::Table).if_exists().take())
            .await
    }
}

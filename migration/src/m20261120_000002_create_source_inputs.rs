//! The last accepted input of each source.

use sea_orm_migration::{
    prelude::*,
    schema::{big_integer, string_len},
};

use crate::columns;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum SourceInputs {
    Table,
    Source,
    Digest,
    AcceptedAtMs,
    Body,
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "`async_trait` takes a spelt-out `'_` for another signature than the trait's"
)]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = columns::table(manager, SourceInputs::Table);
        table
            .col(string_len(SourceInputs::Source, 64).primary_key())
            .col(string_len(SourceInputs::Digest, 64))
            .col(big_integer(SourceInputs::AcceptedAtMs))
            .col(columns::bytes(manager, SourceInputs::Body));
        manager.create_table(table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = Table::drop();
        manager
            .drop_table(table.table(SourceInputs::Table).if_exists().take())
            .await
    }
}

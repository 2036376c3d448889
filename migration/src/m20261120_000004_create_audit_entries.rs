//! Who did what. Rows are only ever added.

use sea_orm_migration::{
    prelude::*,
    schema::{big_integer, big_pk_auto, string_len, string_len_uniq},
};

use crate::columns;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum AuditEntries {
    Table,
    Id,
    Uid,
    AtMs,
    Actor,
    Role,
    Action,
    Target,
    Reason,
    Result,
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "`async_trait` takes a spelt-out `'_` for another signature than the trait's"
)]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = columns::table(manager, AuditEntries::Table);
        table
            .col(big_pk_auto(AuditEntries::Id))
            // An entry that was queued and is written again must not be doubled.
            .col(string_len_uniq(AuditEntries::Uid, 36))
            .col(big_integer(AuditEntries::AtMs))
            .col(string_len(AuditEntries::Actor, 128))
            .col(string_len(AuditEntries::Role, 16))
            .col(string_len(AuditEntries::Action, 64))
            .col(string_len(AuditEntries::Target, 255))
            .col(columns::long_text(manager, AuditEntries::Reason).null())
            .col(string_len(AuditEntries::Result, 255));
        manager.create_table(table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = Table::drop();
        manager
            .drop_table(table.table(AuditEntries::Table).if_exists().take())
            .await
    }
}

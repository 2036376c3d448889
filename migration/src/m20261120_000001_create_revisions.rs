//! What was published: one row per revision of an environment, with the packed bytes of every route.

use sea_orm_migration::{
    prelude::*,
    schema::{big_integer, big_pk_auto, string_len},
};

use crate::columns;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Revisions {
    Table,
    Id,
    Environment,
    Revision,
    Hash,
    Cause,
    Features,
    Experiments,
    SizeBytes,
    PublishedAtMs,
    Body,
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "`async_trait` takes a spelt-out `'_` for another signature than the trait's"
)]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = columns::table(manager, Revisions::Table);
        table
            .col(big_pk_auto(Revisions::Id))
            .col(string_len(Revisions::Environment, 64))
            .col(big_integer(Revisions::Revision))
            .col(string_len(Revisions::Hash, 64))
            .col(string_len(Revisions::Cause, 255))
            .col(big_integer(Revisions::Features))
            .col(big_integer(Revisions::Experiments))
            .col(big_integer(Revisions::SizeBytes))
            .col(big_integer(Revisions::PublishedAtMs))
            .col(columns::bytes(manager, Revisions::Body))
            .index(
                // Allots the numbers: of two replicas that want the same one, one is refused.
                Index::create()
                    .unique()
                    .name("uq_revisions_environment_revision")
                    .col(Revisions::Environment)
                    .col(Revisions::Revision),
            );
        manager.create_table(table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = Table::drop();
        manager
            .drop_table(table.table(Revisions::Table).if_exists().take())
            .await
    }
}

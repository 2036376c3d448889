//! What units were given in experiments: one row per unit, replaced as a whole.

use sea_orm_migration::{
    prelude::*,
    schema::{big_integer, string_len},
};

use crate::columns;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum StickyBuckets {
    Table,
    Id,
    UpdatedAtMs,
    Document,
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "`async_trait` takes a spelt-out `'_` for another signature than the trait's"
)]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = columns::table(manager, StickyBuckets::Table);
        table
            // The hash of the unit's key, which may be of any length.
            .col(string_len(StickyBuckets::Id, 64).primary_key())
            .col(big_integer(StickyBuckets::UpdatedAtMs))
            .col(columns::long_text(manager, StickyBuckets::Document).not_null());
        manager.create_table(table).await?;
        // Old rows are found by it, to be deleted.
        let mut index = Index::create();
        index
            .name("ix_sticky_buckets_updated_at_ms")
            .table(StickyBuckets::Table)
            .col(StickyBuckets::UpdatedAtMs)
            .if_not_exists();
        if manager
            .has_index("sticky_buckets", "ix_sticky_buckets_updated_at_ms")
            .await?
        {
            return Ok(());
        }
        manager.create_index(index).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut table = Table::drop();
        manager
            .drop_table(table.table(StickyBuckets::Table).if_exists().take())
            .await
    }
}

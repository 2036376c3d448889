//! Where a revision came from: who wanted it and why, of which inputs it was made, how many issues it had.
//!
//! All of it is empty in rows of older releases.

use sea_orm_migration::{
    prelude::*,
    schema::{big_integer_null, string_len_null},
};

use crate::columns;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Revisions {
    Table,
    Author,
    Reason,
    PinnedFrom,
    Errors,
    Warnings,
    Sources,
}

/// The added columns by name.
fn added(manager: &SchemaManager<'_>) -> [(&'static str, ColumnDef); 6] {
    [
        ("author", string_len_null(Revisions::Author, 128)),
        ("reason", columns::long_text(manager, Revisions::Reason)),
        ("pinned_from", big_integer_null(Revisions::PinnedFrom)),
        ("errors", big_integer_null(Revisions::Errors)),
        ("warnings", big_integer_null(Revisions::Warnings)),
        ("sources", columns::long_text(manager, Revisions::Sources)),
    ]
}

#[expect(
    elided_lifetimes_in_paths,
    reason = "`async_trait` takes a spelt-out `'_` for another signature than the trait's"
)]
#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // One at a time: SQLite adds no two columns at once.
        for (name, mut column) in added(manager) {
            if !manager.has_column("revisions", name).await? {
                let mut table = Table::alter();
                table.table(Revisions::Table).add_column(&mut column);
                manager.alter_table(table).await?;
            }
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, _) in added(manager) {
            if manager.has_column("revisions", name).await? {
                let mut table = Table::alter();
                table.table(Revisions::Table).drop_column(name);
                manager.alter_table(table).await?;
            }
        }
        Ok(())
    }
}

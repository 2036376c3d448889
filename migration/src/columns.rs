//! What the three databases spell differently.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

/// A new table. On MariaDB its text compares byte by byte, as it does on the others.
pub(crate) fn table(manager: &SchemaManager<'_>, name: impl IntoTableRef) -> TableCreateStatement {
    let mut table = Table::create();
    // MariaDB cannot undo half a migration, so running it again must do no harm.
    table.table(name).if_not_exists();
    if is_mysql(manager) {
        table.character_set("utf8mb4").collate("utf8mb4_bin");
    }
    table
}

/// Bytes without a practical limit: `blob` alone would end at 64 KiB on MariaDB.
pub(crate) fn bytes(manager: &SchemaManager<'_>, name: impl IntoIden) -> ColumnDef {
    let mut column = ColumnDef::new(name);
    if is_mysql(manager) {
        column.custom("longblob");
    } else {
        column.blob();
    }
    column.not_null().take()
}

/// Text without a practical limit.
pub(crate) fn long_text(manager: &SchemaManager<'_>, name: impl IntoIden) -> ColumnDef {
    let mut column = ColumnDef::new(name);
    if is_mysql(manager) {
        column.custom("longtext");
    } else {
        column.text();
    }
    column.take()
}

fn is_mysql(manager: &SchemaManager<'_>) -> bool {
    manager.get_database_backend() == DbBackend::MySql
}

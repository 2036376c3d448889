//! The audit only ever grows.

use super::{program, rust_files};

/// Ways to change or delete rows.
const CHANGES: [&str; 8] = [
    "::update(",
    "::update_many(",
    "::delete(",
    "::delete_many(",
    "::delete_by_id(",
    "update_columns(",
    "UPDATE audit_entries",
    "DELETE FROM audit_entries",
];

/// Where a statement begins and ends in a text without comments.
fn statements(text: &str) -> impl Iterator<Item = &str> {
    text.split(';')
}

/// Statements that change or delete entries.
fn offences(text: &str) -> Vec<&str> {
    let is_offence = |statement: &&str| {
        statement.contains("audit_entries") && CHANGES.iter().any(|word| statement.contains(word))
    };
    statements(text).filter(is_offence).collect()
}

#[test]
fn no_code_changes_or_deletes_entries_of_the_audit() {
    let mut uses = 0;
    for path in rust_files("src")
        .into_iter()
        .chain(rust_files("migration/src"))
    {
        let lines = program(&path).into_iter().map(|(_, line)| line + "\n");
        let text: String = lines.collect();
        uses += text.matches("audit_entries::Entity::").count();
        let found = offences(&text);
        assert!(found.is_empty(), "{}: {found:?}", path.display());
    }
    assert!(uses >= 2, "the audit is written and read elsewhere now");
}

#[test]
fn the_check_sees_changes() {
    for text in [
        "let gone = audit_entries::Entity::delete_many().exec(&db).await;",
        "audit_entries::Entity::insert(x).on_conflict(OnConflict::new()\n.update_columns([A]));",
        "db.execute_unprepared(\"DELETE FROM audit_entries\");",
    ] {
        assert_eq!(offences(text).len(), 1, "{text}");
    }
    assert!(offences("audit_entries::Entity::insert_many(models);").is_empty());
}

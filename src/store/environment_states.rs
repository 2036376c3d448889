//! What operators decided about environments, in the database and on disk.
//!
//! In the database an environment is one row with a version: whoever writes names the version that it has seen, and is
//! refused when somebody else was faster; it then merges and tries again. One cheap question tells whether there is news.

use std::collections::BTreeMap;

use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, DatabaseConnection, DbErr, EntityTrait as _,
    QueryFilter as _, QuerySelect as _, sea_query::Expr,
};

use super::{
    Database, Registers, StoreError,
    entity::environment_states::{self, Column},
    revisions::is_duplicate,
};

/// An environment's registers as the database has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvironmentState {
    /// Rises with each write; 0: there is none.
    pub version: i64,
    /// What was decided.
    pub registers: Registers,
}

impl Database {
    /// Replaces an environment's registers if `seen` is still their version; `false`: somebody else was faster.
    ///
    /// What is written gets the version behind `seen`.
    pub async fn save_registers(
        &self,
        environment: &str,
        seen: i64,
        registers: &Registers,
        now_ms: i64,
    ) -> Result<bool, StoreError> {
        let (environment, body) = (environment.to_owned(), registers.to_json());
        self.run(body.len(), move |db| async move {
            if seen == 0 {
                return insert(&db, environment, body, now_ms).await;
            }
            let update = environment_states::Entity::update_many()
                .col_expr(Column::Version, Expr::value(seen + 1))
                .col_expr(Column::UpdatedAtMs, Expr::value(now_ms))
                .col_expr(Column::Body, Expr::value(body))
                .filter(Column::Environment.eq(environment))
                .filter(Column::Version.eq(seen));
            Ok(update.exec(&db).await?.rows_affected > 0)
        })
        .await
    }

    /// The version of every environment's registers.
    pub async fn registers_versions(&self) -> Result<BTreeMap<String, i64>, StoreError> {
        self.run(0, |db| async move {
            let versions: Vec<(String, i64)> = environment_states::Entity::find()
                .select_only()
                .columns([Column::Environment, Column::Version])
                .into_tuple()
                .all(&db)
                .await?;
            Ok(versions.into_iter().collect())
        })
        .await
    }

    /// An environment's registers. Fails when what is stored cannot be read.
    pub async fn load_registers(&self, environment: &str) -> Result<EnvironmentState, StoreError> {
        let name = environment.to_owned();
        let row = self.run(0, move |db| async move {
            environment_states::Entity::find_by_id(name).one(&db).await
        });
        row.await?
            .map_or_else(|| Ok(EnvironmentState::default()), |row| read(&row))
    }

    /// The registers of every environment; what cannot be read is passed over with a line for the log.
    pub(super) async fn load_all_registers(
        &self,
    ) -> Result<(BTreeMap<String, EnvironmentState>, Vec<String>), StoreError> {
        let rows = self.run(0, |db| async move {
            environment_states::Entity::find().all(&db).await
        });
        let (mut all, mut notes) = (BTreeMap::new(), Vec::new());
        for row in rows.await? {
            match read(&row) {
                Ok(state) => {
                    all.insert(row.environment, state);
                }
                Err(error) => notes.push(format!("passed over: {}", error.explain())),
            }
        }
        Ok((all, notes))
    }
}

async fn insert(
    db: &DatabaseConnection,
    environment: String,
    body: String,
    now_ms: i64,
) -> Result<bool, DbErr> {
    let model = environment_states::ActiveModel {
        environment: Set(environment),
        version: Set(1),
        updated_at_ms: Set(now_ms),
        body: Set(body),
    };
    let insert = environment_states::Entity::insert(model);
    match insert.exec_without_returning(db).await {
        Ok(_) => Ok(true),
        Err(error) if is_duplicate(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn read(row: &environment_states::Model) -> Result<EnvironmentState, StoreError> {
    let registers = serde_json::from_str(&row.body).map_err(|error| {
        let what = format!("the database's state of environment `{}`", row.environment);
        StoreError::corrupt(what, error.to_string())
    })?;
    Ok(EnvironmentState {
        version: row.version,
        registers,
    })
}

//! What callers see of a snapshot who may not see all of it: made once per revision and scope, however many tokens have it.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
};

use parking_lot::RwLock;
use tokio::sync::OnceCell;

use super::{Document, Projects, Scope};
use crate::eval::{FeatureProjects, Flags};

/// Views kept of one revision; a further one takes the place of any.
const VIEWS_MAX: usize = 1000;

/// Which part of a snapshot may be seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// What a token's scope sees; of its environment's snapshot.
    Scope(Arc<Scope>),
    /// What a connection delivered, by the name of its document.
    Connection(Arc<str>),
}

impl Projects {
    /// Whether a feature may be seen: one of unknown projects only by those who see all.
    pub fn sees_feature(&self, projects: &FeatureProjects) -> bool {
        match projects {
            FeatureProjects::All => true,
            FeatureProjects::Unknown => *self == Self::All,
            FeatureProjects::Some(names) => self.sees(names.iter().map(|name| &**name)),
        }
    }
}

impl Visibility {
    /// Whether a feature or an experiment of these projects may be seen, as far as projects alone tell.
    pub fn sees_feature(&self, projects: &FeatureProjects) -> bool {
        match self {
            Self::Scope(scope) => scope.projects.sees_feature(projects),
            Self::Connection(_) => false,
        }
    }
}

/// A document for one scope, and what had to be left out of it.
#[derive(Debug)]
pub struct ScopedDocument {
    /// The document, under a name of its own.
    pub document: Arc<Document>,
    /// Features left out although they may be seen, each with the prerequisite that may not.
    pub left_out: Vec<(String, String)>,
}

/// What one scope sees of one revision.
#[derive(Debug, Default)]
pub struct View {
    flags: OnceLock<Box<[u32]>>,
    decisions: OnceLock<Box<[usize]>>,
    seed: OnceLock<[u8; 32]>,
    /// The payload of GrowthBook's SDKs.
    pub features: OnceCell<ScopedDocument>,
    /// The snapshot.
    pub snapshot: OnceCell<ScopedDocument>,
}

impl View {
    /// Positions of the flags that may be seen; `find` finds them the first time.
    pub fn flags(&self, find: impl FnOnce() -> Box<[u32]>) -> &[u32] {
        self.flags.get_or_init(find)
    }

    /// Positions of the decisions that may be seen; `find` finds them the first time.
    pub fn decisions(&self, find: impl FnOnce() -> Box<[usize]>) -> &[usize] {
        self.decisions.get_or_init(find)
    }

    /// What entity tags of its answers begin with; `make` makes it the first time.
    pub fn seed(&self, make: impl FnOnce() -> [u8; 32]) -> &[u8; 32] {
        self.seed.get_or_init(make)
    }

    /// What was left out of the documents that were made.
    pub fn left_out(&self) -> impl Iterator<Item = &(String, String)> {
        let made = [self.features.get(), self.snapshot.get()];
        made.into_iter().flatten().flat_map(|made| &made.left_out)
    }
}

/// The views of one revision; clones share them.
#[derive(Clone, Default)]
pub struct Views(Arc<RwLock<HashMap<Visibility, Arc<View>>>>);

impl Views {
    /// The view of a scope; empty until somebody asks it for something.
    pub fn of(&self, visibility: &Visibility) -> Arc<View> {
        if let Some(view) = self.0.read().get(visibility) {
            return Arc::clone(view);
        }
        let mut views = self.0.write();
        if views.len() >= VIEWS_MAX
            && let Some(any) = views.keys().next().cloned()
        {
            views.remove(&any);
        }
        Arc::clone(views.entry(visibility.clone()).or_default())
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<View>> {
        self.0.read().values().map(Arc::clone).collect()
    }
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Views({})", self.0.read().len())
    }
}

impl super::Snapshot {
    /// What a scope sees of it.
    pub fn view(&self, visibility: &Visibility) -> Arc<View> {
        self.views.of(visibility)
    }

    /// What all scopes see that somebody asked for.
    pub fn views(&self) -> Vec<Arc<View>> {
        self.views.all()
    }

    /// Positions of the flags that a scope sees.
    pub fn visible<'v>(&self, view: &'v View, visibility: &Visibility, flags: &Flags) -> &'v [u32] {
        view.flags(|| match visibility {
            Visibility::Scope(scope) => {
                flags.visible(|flag| scope.projects.sees_feature(flag.projects()))
            }
            Visibility::Connection(name) => {
                let delivered = self.document(name).map(|document| document.delivered());
                let delivered = delivered.unwrap_or_default();
                flags.visible(|flag| {
                    let found = delivered.binary_search_by(|key| (**key).cmp(flag.key()));
                    found.is_ok()
                })
            }
        })
    }
}

impl Document {
    /// Keys of the features that a connection delivered, sorted.
    ///
    /// Documents stored by earlier releases do not name them: then they are read from the bytes, which shows nothing of
    /// encrypted ones until they change.
    fn delivered(&self) -> Vec<String> {
        if !self.members.is_empty() {
            return self.members.clone();
        }
        let payload: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let features = payload
            .get("features")
            .and_then(serde_json::Value::as_object);
        let keys = features.into_iter().flat_map(|features| features.keys());
        let mut keys: Vec<String> = keys.cloned().collect();
        keys.sort_unstable();
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_made_once_per_scope_and_their_number_is_bounded() {
        let views = Views::default();
        let of = |name: String| {
            let projects = Projects::from_names([&*name]).unwrap();
            let environment = "production".into();
            Visibility::Scope(Arc::new(Scope {
                environment,
                projects,
            }))
        };
        let one = views.of(&of("a".to_owned()));
        assert!(Arc::ptr_eq(&one, &views.of(&of("a".to_owned()))));
        for number in 0..3 * VIEWS_MAX {
            views.of(&of(number.to_string()));
            assert!(views.all().len() <= VIEWS_MAX);
        }
    }
}

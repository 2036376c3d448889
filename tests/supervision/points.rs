//! The fail points, as the sources of the actors have them; and the rule that there is one wherever an actor can die.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What stands before the name of a fail point.
const MARK: &str = "fail::fail_point!(\"";

/// Points in work that is handed to a blocking thread: a panic there is a value for whoever waits for it.
const ON_BLOCKING_THREADS: &[&str] = &["config_service.blocking", "store.compress"];

/// A place where a test can make something panic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Point {
    pub(crate) name: String,
    /// Whether the panic ends the actor; else only whoever waits for that one thing notices.
    pub(crate) is_deadly: bool,
}

#[cfg(feature = "failpoints")]
impl Point {
    /// `store` of `store.Publish`.
    pub(crate) fn actor(&self) -> &str {
        self.name.split('.').next().unwrap()
    }
}

/// One source file without comments and tests.
struct Source {
    path: PathBuf,
    text: String,
}

/// Where text between braces begins and ends, braces excluded.
type Span = std::ops::Range<usize>;

impl Source {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let is_code = |line: &&str| !line.trim_start().starts_with("//");
        let text = text.lines().filter(is_code).collect::<Vec<_>>().join("\n");
        Self {
            path: path.to_owned(),
            text,
        }
    }

    /// Where each occurrence of `pattern` ends.
    fn ends_of(&self, pattern: &str) -> Vec<usize> {
        let found = self.text.match_indices(pattern);
        found.map(|(at, _)| at + pattern.len()).collect()
    }

    /// The block whose opening brace is the first at or behind `from`.
    fn block(&self, from: usize) -> Span {
        let open = from + self.text[from..].find('{').unwrap();
        let mut depth = 0;
        for (at, character) in self.text[open..].char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return open + 1..open + at;
            }
        }
        panic!("{}: a brace is not closed", self.path.display());
    }

    /// The name of the fail point that is the first statement of a block.
    fn first_point(&self, block: Span) -> Option<&str> {
        let rest = self.text[block].trim_start().strip_prefix(MARK)?;
        rest.split('"').next()
    }

    /// The body of the function around a place.
    fn function_around(&self, at: usize) -> Span {
        let start = self.text[..at].rfind(" fn ").unwrap();
        self.block(start)
    }

    /// Blocks that start with one of these words.
    fn blocks_after(&self, words: &[&str]) -> Vec<Span> {
        let starts = words.iter().flat_map(|word| self.ends_of(word));
        starts.map(|end| self.block(end - 1)).collect()
    }

    fn place(&self, at: usize) -> String {
        let line = self.text[..at].lines().last().unwrap_or_default();
        format!("{} behind `{}`", self.path.display(), line.trim())
    }
}

fn sources(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.file_name().unwrap().to_str().unwrap() {
            "tests" | "tests.rs" => {}
            _ if path.is_dir() => sources(&path, found),
            _ => found.push(Source::read(&path)),
        }
    }
}

fn all_sources() -> Vec<Source> {
    let mut found = Vec::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/actors");
    sources(&folder, &mut found);
    assert!(found.len() > 10, "the actors have moved");
    found
}

/// `config_service` of `ConfigServiceActor`.
fn kind(actor: &str) -> String {
    let mut kind = String::new();
    for character in actor.strip_suffix("Actor").unwrap().chars() {
        if character.is_uppercase() && !kind.is_empty() {
            kind.push('_');
        }
        kind.extend(character.to_lowercase());
    }
    kind
}

/// A handler in the sources.
struct Handler<'a> {
    /// `store.Publish`.
    name: String,
    source: &'a Source,
    /// The whole `impl`; `None` for one that a macro writes.
    block: Option<Span>,
}

fn handlers(sources: &[Source]) -> Vec<Handler<'_>> {
    let mut found = Vec::new();
    for source in sources {
        for end in source.ends_of("impl Handler<") {
            let (message, rest) = source.text[end..].split_once('>').unwrap();
            let actor = rest.trim_start().strip_prefix("for ").unwrap();
            let actor = actor.split_whitespace().next().unwrap();
            found.push(Handler {
                name: format!("{}.{message}", kind(actor)),
                source,
                block: Some(source.block(end)),
            });
        }
        let written: [(&str, &[&str]); 2] = [
            ("::ping!(", &["Ping"]),
            ("::lifecycle!(", &["Ping", "Quit"]),
        ];
        for (writer, messages) in written {
            for end in source.ends_of(writer) {
                let (actor, name) = source.text[end..].split_once(", ").unwrap();
                let name = name.split('"').nth(1).unwrap();
                assert_eq!(name, kind(actor), "an actor goes by one name");
                for message in messages {
                    found.push(Handler {
                        name: format!("{name}.{message}"),
                        source,
                        block: None,
                    });
                }
            }
        }
    }
    found
}

/// Every fail point there is, sorted.
pub(crate) fn points() -> Vec<Point> {
    let sources = all_sources();
    let mut points = Vec::new();
    for source in &sources {
        // Replies that run as tasks of their own, beside the actor.
        let beside: Vec<Span> = source
            .blocks_after(&["impl Handler<"])
            .into_iter()
            .filter(|block| source.text[block.clone()].contains("type Result = ResponseFuture<"))
            .flat_map(|handler| {
                let mut inner = source.blocks_after(&["async move {"]);
                inner.retain(|block| handler.contains(&block.start));
                inner
            })
            .collect();
        for end in source.ends_of(MARK) {
            let name = source.text[end..].split('"').next().unwrap().to_owned();
            let is_beside = beside.iter().any(|block| block.contains(&end))
                || ON_BLOCKING_THREADS.contains(&name.as_str());
            points.push(Point {
                name,
                is_deadly: !is_beside,
            });
        }
    }
    for handler in handlers(&sources) {
        if handler.block.is_none() {
            points.push(Point {
                name: handler.name,
                is_deadly: true,
            });
        }
    }
    points.sort();
    points
}

#[test]
fn every_handler_begins_with_its_own_fail_point() {
    let sources = all_sources();
    let handlers = handlers(&sources);
    assert!(handlers.len() > 25, "{} handlers found", handlers.len());
    for handler in &handlers {
        let Some(block) = &handler.block else {
            continue;
        };
        let source = handler.source;
        let body = source.text[block.clone()].find("fn handle(").unwrap();
        // Skips the arguments, which have no braces.
        let point = source.first_point(source.block(block.start + body));
        assert_eq!(point, Some(handler.name.as_str()));
    }
    let names: BTreeSet<&str> = handlers.iter().map(|h| h.name.as_str()).collect();
    assert_eq!(names.len(), handlers.len());
    let actors: BTreeSet<&str> = names.iter().map(|n| n.split('.').next().unwrap()).collect();
    let actors: Vec<&str> = actors.into_iter().collect();
    assert_eq!(
        actors,
        [
            "announcer",
            "client",
            "config_service",
            "poller",
            "sticky",
            "store",
            "supervisor",
            "token"
        ]
    );
    for actor in actors {
        for message in ["Ping", "Quit"] {
            assert!(names.contains(format!("{actor}.{message}").as_str()));
        }
    }
}

#[test]
fn lifecycle_handlers_begin_with_a_fail_point_too() {
    let sources = all_sources();
    let is_macro = |source: &&Source| source.text.contains("macro_rules! lifecycle");
    let source = sources.iter().find(is_macro).unwrap();
    for (message, rest) in [("Ping", ", |_|"), ("Quit", ");")] {
        let point = format!("fail::fail_point!(concat!($name, \".{message}\"){rest}");
        assert_eq!(source.text.matches(&point).count(), 1, "{point}");
    }
    let uses = source
        .text
        .matches("$crate::actors::ping! { $actor, $name }");
    assert_eq!(uses.count(), 1);
}

#[test]
fn every_future_of_an_actor_begins_with_a_fail_point() {
    let sources = all_sources();
    let mut futures = 0;
    for source in &sources {
        if !source.text.contains("impl Actor for ") {
            continue;
        }
        let blocks = source.blocks_after(&["async move {", "async {"]);
        for block in &blocks {
            let point = source.first_point(block.clone());
            assert!(point.is_some(), "{}", source.place(block.start));
        }
        futures += blocks.len();
        for end in source
            .ends_of("ctx.spawn(")
            .into_iter()
            .chain(source.ends_of("Box::pin("))
        {
            let function = source.function_around(end);
            let has_future = blocks.iter().any(|block| function.contains(&block.start));
            assert!(has_future, "{}", source.place(end));
        }
    }
    assert!(futures > 10, "{futures} futures found");
}

#[test]
fn every_timer_of_an_actor_begins_with_a_fail_point() {
    let sources = all_sources();
    let mut timers = 0;
    for source in &sources {
        let timed = [".run_later(", ".run_interval("];
        for end in timed.iter().flat_map(|timer| source.ends_of(timer)) {
            timers += 1;
            let (_, action) = source.text[end..].split_once(", ").unwrap();
            let body = match action.strip_prefix("Self::") {
                Some(method) => {
                    let name = method
                        .split(|c: char| !c.is_alphanumeric() && c != '_')
                        .next();
                    let declared = format!("fn {}(", name.unwrap());
                    source.block(source.ends_of(&declared)[0])
                }
                None => source.block(end),
            };
            let point = source.first_point(body);
            assert!(
                point.and_then(|point| point.split('.').nth(1)) == Some("timer"),
                "{}",
                source.place(end)
            );
        }
    }
    assert_eq!(
        timers, 5,
        "store, config service, poller, tokens and supervisor have one each"
    );
}

#[test]
fn fail_points_have_names_of_their_own() {
    let points = points();
    let names: BTreeSet<&str> = points.iter().map(|point| point.name.as_str()).collect();
    assert_eq!(names.len(), points.len(), "{points:?}");
    for name in ON_BLOCKING_THREADS {
        assert!(names.contains(name), "{name} is gone");
    }
}

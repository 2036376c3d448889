//! Rewrites a JavaScript pattern into one that `regex` and `fancy-regex` read the same way.
//!
//! Every escape, class and brace is understood here and written anew, because the flavours differ in nearly all of
//! them; what JavaScript refuses is refused.

use std::fmt::Write as _;

use super::class::Class;

/// Which engine a pattern needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    /// A finite automaton does.
    Linear,
    /// It looks around or back.
    Backtracking,
}

/// A rewritten pattern.
pub(super) struct Translated {
    pub(super) text: String,
    pub(super) engine: Engine,
}

/// Rewrites a pattern; `None` where it is a syntax error.
pub(super) fn translate(pattern: &str, insensitive: bool) -> Option<Translated> {
    let units: Vec<u16> = pattern.encode_utf16().collect();
    let groups = Groups::count(&units);
    let mut engine = Engine::Linear;
    loop {
        let mut translator = Translator {
            units: &units,
            at: 0,
            out: String::with_capacity(pattern.len() * 2),
            groups: &groups,
            insensitive,
            engine,
            open: Vec::new(),
            quantifiable: false,
        };
        translator.pattern()?;
        // The boundaries `\b` and `\B` are written differently for the other engine.
        if translator.engine == engine {
            return Some(Translated {
                text: translator.out,
                engine,
            });
        }
        engine = translator.engine;
    }
}

/// The capturing groups of a pattern.
struct Groups {
    count: usize,
    names: Vec<(Vec<u16>, usize)>,
}

impl Groups {
    fn count(units: &[u16]) -> Self {
        let mut groups = Self {
            count: 0,
            names: Vec::new(),
        };
        let (mut at, mut in_class) = (0, false);
        while let Some(unit) = units.get(at) {
            match u8::try_from(*unit).unwrap_or_default() {
                b'\\' => at += 1,
                b'[' => in_class = true,
                b']' => in_class = false,
                b'(' if !in_class => groups.open(&units[at + 1..]),
                _ => {}
            }
            at += 1;
        }
        groups
    }

    fn open(&mut self, rest: &[u16]) {
        let is = |index: usize, byte: u8| rest.get(index) == Some(&u16::from(byte));
        if !is(0, b'?') {
            self.count += 1;
        } else if is(1, b'<') && !is(2, b'=') && !is(2, b'!') {
            self.count += 1;
            let name = rest[2..]
                .iter()
                .take_while(|unit| **unit != u16::from(b'>'));
            self.names.push((name.copied().collect(), self.count));
        }
    }
}

/// What a closing parenthesis ends.
#[derive(Clone, Copy)]
struct Open {
    quantifiable: bool,
}

/// What an opening brace begins.
enum Brace {
    /// How often the last atom may come.
    Counts(String),
    /// Nothing: it stands for itself.
    Itself,
    /// Counts in the wrong order.
    Wrong,
}

struct Translator<'a> {
    units: &'a [u16],
    at: usize,
    out: String,
    groups: &'a Groups,
    insensitive: bool,
    engine: Engine,
    open: Vec<Open>,
    /// Whether a quantifier may follow.
    quantifiable: bool,
}

impl Translator<'_> {
    /// The next unit as ASCII; 0 for any other, `None` at the end.
    fn peek(&self) -> Option<u8> {
        self.units.get(self.at).map(|unit| ascii(*unit))
    }

    fn take(&mut self, expected: u8) -> bool {
        let found = self.peek() == Some(expected);
        self.at += usize::from(found);
        found
    }

    fn pattern(&mut self) -> Option<()> {
        while let Some(unit) = self.units.get(self.at).copied() {
            self.at += 1;
            match ascii(unit) {
                b'\\' => self.escape()?,
                b'[' => self.class()?,
                b'(' => self.group()?,
                b')' => {
                    self.quantifiable = self.open.pop()?.quantifiable;
                    self.out.push(')');
                }
                b'|' => self.assertion("|"),
                b'^' => self.assertion(r"\A"),
                b'$' => self.assertion(r"\z"),
                b'.' => self.atom(Class::dot()),
                byte @ (b'*' | b'+' | b'?') => self.quantifier(&char::from(byte).to_string())?,
                b'{' => match self.brace() {
                    Brace::Counts(counts) => self.quantifier(&counts)?,
                    Brace::Itself => self.atom(Class::unit(unit)),
                    Brace::Wrong => return None,
                },
                _ => self.atom(Class::unit(unit)),
            }
        }
        self.open.is_empty().then_some(())
    }

    fn atom(&mut self, class: Class) {
        class.write(&mut self.out, false, self.insensitive);
        self.quantifiable = true;
    }

    fn assertion(&mut self, text: &str) {
        self.out.push_str(text);
        self.quantifiable = false;
    }

    fn quantifier(&mut self, text: &str) -> Option<()> {
        if !std::mem::take(&mut self.quantifiable) {
            return None;
        }
        self.out.push_str(text);
        if self.take(b'?') {
            self.out.push('?');
        }
        Some(())
    }

    /// Reads `n}`, `n,}` or `n,m}`, if that is what follows.
    fn brace(&mut self) -> Brace {
        let start = self.at;
        let brace = self.counts();
        if brace.is_none() {
            self.at = start;
        }
        brace.unwrap_or(Brace::Itself)
    }

    fn counts(&mut self) -> Option<Brace> {
        let low = self.decimal()?;
        let high = if self.take(b',') {
            if self.take(b'}') {
                return Some(Brace::Counts(format!("{{{low},}}")));
            }
            self.decimal()?
        } else {
            low
        };
        if !self.take(b'}') {
            return None;
        }
        Some(if low <= high {
            Brace::Counts(format!("{{{low},{high}}}"))
        } else {
            Brace::Wrong
        })
    }

    fn decimal(&mut self) -> Option<u64> {
        let start = self.at;
        let mut value = 0_u64;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value
                .saturating_mul(10)
                .saturating_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        (self.at > start).then_some(value)
    }

    fn group(&mut self) -> Option<()> {
        let (text, quantifiable) = if !self.take(b'?') {
            ("(", true)
        } else if self.take(b':') {
            ("(?:", true)
        } else if self.take(b'=') {
            ("(?=", true)
        } else if self.take(b'!') {
            ("(?!", true)
        } else if self.take(b'<') {
            if self.take(b'=') {
                ("(?<=", false)
            } else if self.take(b'!') {
                ("(?<!", false)
            } else {
                self.name()?;
                ("(", true)
            }
        } else {
            return None;
        };
        if !matches!(text, "(" | "(?:") {
            self.engine = Engine::Backtracking;
        }
        self.open.push(Open { quantifiable });
        self.assertion(text);
        Some(())
    }

    /// Reads a group's name and its `>`.
    fn name(&mut self) -> Option<Vec<u16>> {
        let start = self.at;
        while self.peek()? != b'>' {
            self.at += 1;
        }
        let name = self.units[start..self.at].to_vec();
        self.at += 1;
        (!name.is_empty() && !ascii(name[0]).is_ascii_digit()).then_some(name)
    }

    fn escape(&mut self) -> Option<()> {
        let byte = self.peek()?;
        match byte {
            b'b' | b'B' => {
                self.at += 1;
                self.boundary(byte == b'b');
                return Some(());
            }
            b'1'..=b'9' => {
                let start = self.at;
                let group = self
                    .decimal()
                    .and_then(|group| usize::try_from(group).ok())?;
                if group <= self.groups.count {
                    self.back_reference(group);
                    return Some(());
                }
                self.at = start;
            }
            b'k' if !self.groups.names.is_empty() => {
                self.at += 1;
                if !self.take(b'<') {
                    return None;
                }
                let name = self.name()?;
                let (_, group) = self.groups.names.iter().find(|(known, _)| *known == name)?;
                self.back_reference(*group);
                return Some(());
            }
            _ => {}
        }
        let class = self.class_escape(false)?;
        self.atom(class);
        Some(())
    }

    fn boundary(&mut self, is_boundary: bool) {
        const WORD: &str = "[0-9A-Za-z_]";
        if is_boundary && self.engine == Engine::Linear {
            return self.assertion(r"(?-u:\b)");
        }
        self.engine = Engine::Backtracking;
        // Whether a word follows one, and whether one follows none.
        let (after, before) = if is_boundary { ("!", "=") } else { ("=", "!") };
        self.assertion(&format!(
            "(?:(?<={WORD})(?{after}{WORD})|(?<!{WORD})(?{before}{WORD}))"
        ));
    }

    /// A group that took no part matches the empty text.
    fn back_reference(&mut self, group: usize) {
        self.engine = Engine::Backtracking;
        let flag = if self.insensitive { "?i:" } else { "?:" };
        write!(self.out, r"(?({group})({flag}\{group})|)")
            .expect("writing to a String cannot fail");
        self.quantifiable = true;
    }

    /// Reads what follows a backslash and stands for characters.
    fn class_escape(&mut self, in_class: bool) -> Option<Class> {
        let unit = *self.units.get(self.at)?;
        let byte = ascii(unit);
        self.at += 1;
        if let Some(class) = Class::escape(byte) {
            return Some(class);
        }
        let unit = match byte {
            b'n' => 0x0A,
            b't' => 0x09,
            b'r' => 0x0D,
            b'v' => 0x0B,
            b'f' => 0x0C,
            b'b' if in_class => 0x08,
            b'0'..=b'7' => {
                self.at -= 1;
                self.octal()
            }
            b'x' => self.hexadecimal(2).unwrap_or(unit),
            b'u' => self.hexadecimal(4).unwrap_or(unit),
            b'c' => match self.peek() {
                Some(letter)
                    if letter.is_ascii_alphabetic()
                        || (in_class && (letter.is_ascii_digit() || letter == b'_')) =>
                {
                    self.at += 1;
                    u16::from(letter % 32)
                }
                // The backslash means itself.
                _ => {
                    self.at -= 1;
                    u16::from(b'\\')
                }
            },
            _ => unit,
        };
        Some(Class::unit(unit))
    }

    /// Reads up to three octal digits of a unit below 256.
    fn octal(&mut self) -> u16 {
        let mut value = 0;
        for _ in 0..3 {
            match self.peek() {
                Some(digit @ b'0'..=b'7') if value < 0o40 => {
                    value = value * 8 + u16::from(digit - b'0');
                    self.at += 1;
                }
                _ => break,
            }
        }
        value
    }

    fn hexadecimal(&mut self, digits: usize) -> Option<u16> {
        let text = self.units.get(self.at..self.at + digits)?;
        let mut value = 0;
        for unit in text {
            let digit = char::from(ascii(*unit)).to_digit(16)?;
            value = value * 16 + u16::try_from(digit).ok()?;
        }
        self.at += digits;
        Some(value)
    }

    fn class(&mut self) -> Option<()> {
        let negated = self.take(b'^');
        let mut class = Class::default();
        loop {
            if self.take(b']') {
                break;
            }
            let first = self.class_atom()?;
            let is_range = self.peek() == Some(b'-')
                && self
                    .units
                    .get(self.at + 1)
                    .is_some_and(|unit| ascii(*unit) != b']');
            if !is_range {
                class.extend(&first);
                continue;
            }
            self.at += 1;
            let last = self.class_atom()?;
            if let (Some(first), Some(last)) = (first.single(), last.single()) {
                if first > last {
                    return None;
                }
                class.push(first, last);
            } else {
                class.extend(&first);
                class.extend(&Class::unit(b'-'.into()));
                class.extend(&last);
            }
        }
        class.write(&mut self.out, negated, self.insensitive);
        self.quantifiable = true;
        Some(())
    }

    fn class_atom(&mut self) -> Option<Class> {
        if self.take(b'\\') {
            return self.class_escape(true);
        }
        let unit = *self.units.get(self.at)?;
        self.at += 1;
        Some(Class::unit(unit))
    }
}

/// The unit as ASCII, 0 for any other.
fn ascii(unit: u16) -> u8 {
    u8::try_from(unit)
        .ok()
        .filter(u8::is_ascii)
        .unwrap_or_default()
}

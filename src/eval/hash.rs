//! Where a unit falls: FNV-1a over UTF-16 code units, reduced to a number in `0..1`.

use std::{
    borrow::Cow,
    fmt::{self, Write},
};

use super::js::{self, Actual};

const OFFSET: u32 = 0x811C_9DC5;
const PRIME: u32 = 0x0100_0193;

/// FNV-1a, 32 bits, fed whole 16-bit units.
#[derive(Clone, Copy)]
struct Fnv(u32);

impl Fnv {
    fn unit(&mut self, unit: u32) {
        self.0 = (self.0 ^ unit).wrapping_mul(PRIME);
    }

    fn text(&mut self, text: &str) {
        self.known(text, text.is_ascii());
    }

    /// [`Self::text`] where it is known whether all of it is ASCII.
    fn known(&mut self, text: &str, is_ascii: bool) {
        if is_ascii {
            text.bytes().for_each(|byte| self.unit(byte.into()));
        } else {
            text.encode_utf16().for_each(|unit| self.unit(unit.into()));
        }
    }

    fn value(&mut self, value: Actual<'_>) {
        match value {
            Actual::String(text) => self.text(text),
            Actual::Number(number) => {
                js::write_number(self, number).expect("hashing cannot fail");
            }
            other => self.text(&js::string(other)),
        }
    }

    /// Feeds a number's decimal digits.
    fn decimal(&mut self, mut number: u32) {
        // Two digits per division: this is half of what a bucket costs.
        let mut digits = [0_u8; 10];
        let mut start = digits.len();
        let digit = |number: u32| b'0' + u8::try_from(number).unwrap_or_default();
        while number >= 10 {
            let pair = number % 100;
            number /= 100;
            start -= 2;
            digits[start] = digit(pair / 10);
            digits[start + 1] = digit(pair % 10);
        }
        if number > 0 || start == digits.len() {
            start -= 1;
            digits[start] = digit(number);
        }
        digits[start..]
            .iter()
            .for_each(|digit| self.unit((*digit).into()));
    }
}

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text(text);
        Ok(())
    }
}

/// Which formula an item asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HashVersion {
    /// 1,000 buckets, biased; kept for experiments that began with it.
    V1,
    /// 10,000 buckets.
    V2,
    /// One that nobody knows: no unit has a bucket.
    Unknown,
}

impl HashVersion {
    pub(super) fn from_number(number: f64) -> Self {
        match number {
            1.0 => Self::V1,
            2.0 => Self::V2,
            _ => Self::Unknown,
        }
    }
}

/// A seed whose share of the version 2 hash is already computed.
#[derive(Clone, Debug)]
pub(super) struct Seed {
    text: Box<str>,
    state: u32,
}

impl Seed {
    pub(super) fn new(text: &str) -> Self {
        let mut fnv = Fnv(OFFSET);
        fnv.text(text);
        Self {
            text: text.into(),
            state: fnv.0,
        }
    }

    /// The bucket of a value, in `0..1`.
    pub(super) fn bucket(&self, value: Actual<'_>, version: HashVersion) -> Option<f64> {
        match version {
            HashVersion::V2 => {
                let mut inner = Fnv(self.state);
                inner.value(value);
                Some(second(inner))
            }
            HashVersion::V1 => {
                let mut fnv = Fnv(OFFSET);
                fnv.value(value);
                Some(self.first(fnv))
            }
            HashVersion::Unknown => None,
        }
    }

    /// [`Self::bucket`] of a value that was looked at before.
    pub(super) fn bucket_of(&self, unit: &HashedUnit<'_>, version: HashVersion) -> Option<f64> {
        match version {
            HashVersion::V2 => {
                let mut inner = Fnv(self.state);
                inner.known(&unit.text, unit.is_ascii);
                Some(second(inner))
            }
            HashVersion::V1 => Some(self.first(unit.state)),
            HashVersion::Unknown => None,
        }
    }

    /// Version 1, for what has hashed the value: the seed comes last.
    fn first(&self, mut fnv: Fnv) -> f64 {
        fnv.text(&self.text);
        f64::from(fnv.0 % 1_000) / 1_000.0
    }
}

/// Version 2, for what has hashed seed and value: hashed once more.
fn second(inner: Fnv) -> f64 {
    let mut outer = Fnv(OFFSET);
    outer.decimal(inner.0);
    f64::from(outer.0 % 10_000) / 10_000.0
}

/// A unit's value, for many seeds: its text is made once, and so is the whole of version 1 but the seed.
#[derive(Clone)]
pub(super) struct HashedUnit<'a> {
    text: Cow<'a, str>,
    is_ascii: bool,
    state: Fnv,
}

impl<'a> HashedUnit<'a> {
    pub(super) fn new(value: Actual<'a>) -> Self {
        let text = js::string(value);
        let is_ascii = text.is_ascii();
        let mut state = Fnv(OFFSET);
        state.known(&text, is_ascii);
        Self {
            text,
            is_ascii,
            state,
        }
    }
}

/// GrowthBook's `hash`: the bucket of `value` under `seed`, or nothing for a version other than 1 and 2.
pub fn hash(seed: &str, value: &str, version: i64) -> Option<f64> {
    let version = match version {
        1 => HashVersion::V1,
        2 => HashVersion::V2,
        _ => HashVersion::Unknown,
    };
    Seed::new(seed).bucket(Actual::String(value), version)
}

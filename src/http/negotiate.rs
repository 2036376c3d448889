//! What a client accepts and what it already has: `Accept-Encoding` and `If-None-Match`.
//!
//! actix-web can parse both headers into owned values; these functions run on every read and allocate nothing.

use actix_web::http::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue, IF_NONE_MATCH};

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// Brotli.
    Brotli,
    /// Zstandard.
    Zstd,
    /// gzip.
    Gzip,
    /// As it is.
    Identity,
}

impl Coding {
    /// All codings, the one we prefer first: smaller bodies before larger ones.
    pub(super) const ALL: [Self; 4] = [Self::Brotli, Self::Zstd, Self::Gzip, Self::Identity];

    /// Value of `Content-Encoding`; `None` for identity, which is not to be sent.
    pub(super) fn content_encoding(self) -> Option<HeaderValue> {
        match self {
            Self::Brotli => Some(HeaderValue::from_static("br")),
            Self::Zstd => Some(HeaderValue::from_static("zstd")),
            Self::Gzip => Some(HeaderValue::from_static("gzip")),
            Self::Identity => None,
        }
    }

    /// What it adds to the entity tag: a strong tag names exactly one sequence of bytes.
    pub(super) fn tag_suffix(self) -> &'static str {
        match self {
            Self::Brotli => "-br",
            Self::Zstd => "-zstd",
            Self::Gzip => "-gzip",
            Self::Identity => "",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        // `x-gzip` is the same thing (RFC 9110, section 8.4.1.3).
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match () {
            () if is("br") => Some(Self::Brotli),
            () if is("zstd") => Some(Self::Zstd),
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () if is("identity") => Some(Self::Identity),
            () => None,
        }
    }
}

/// The best coding for a client (RFC 9110, section 12.5.3).
///
/// A client that refuses everything gets identity: a configuration that cannot be unpacked is better than none.
pub(super) fn coding(headers: &HeaderMap) -> Coding {
    if !headers.contains_key(ACCEPT_ENCODING) {
        return Coding::Identity;
    }
    let mut listed = [None; 4];
    let mut any = None;
    let values = headers
        .get_all(ACCEPT_ENCODING)
        .filter_map(|value| value.to_str().ok());
    for item in values.flat_map(|value| value.split(',')) {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        let weight = weight_of(parameters);
        match Coding::from_name(name.trim()) {
            Some(coding) => listed[coding as usize] = Some(weight),
            None if name.trim() == "*" => any = Some(weight),
            None => {}
        }
    }
    let mut best = (0, Coding::Identity);
    for coding in Coding::ALL {
        // Identity is acceptable unless excluded, but anything that was asked for goes first.
        let unlisted = any.unwrap_or(u16::from(coding == Coding::Identity));
        let weight = listed[coding as usize].unwrap_or(unlisted);
        if weight > best.0 {
            best = (weight, coding);
        }
    }
    best.1
}

/// Thousandths of a `q` parameter: 1000 where there is none, 0 where it cannot be read.
fn weight_of(parameters: &str) -> u16 {
    let mut quality = parameters.split(';').filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("q")
            .then_some(value.trim())
    });
    let Some(text) = quality.next() else {
        return 1000;
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return 0;
    }
    let thousandths = fraction
        .bytes()
        .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    let scale = [1000, 100, 10, 1][fraction.len()];
    match whole {
        "0" => thousandths * scale,
        "1" => 1000,
        _ => 0,
    }
}

/// What `If-None-Match` says about the tags of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// The header is not there.
    Absent,
    /// None of the tags is named.
    None,
    /// `*`.
    Any,
    /// The tag at this place is named.
    Tag(usize),
}

/// Compares weakly (RFC 9110, section 13.1.2): a cache that compresses weakens the tag.
///
/// `tags` with their quotes. Where several are named, the one at `preferred` goes first.
pub(super) fn if_none_match(headers: &HeaderMap, tags: &[HeaderValue], preferred: usize) -> Match {
    if !headers.contains_key(IF_NONE_MATCH) {
        return Match::Absent;
    }
    let mut found = Match::None;
    // Our tags hold no comma, so a piece of somebody else's tag cannot be taken for one of ours.
    let pieces = headers
        .get_all(IF_NONE_MATCH)
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    for piece in pieces {
        let piece = piece.trim_ascii();
        if piece == b"*" {
            return Match::Any;
        }
        let opaque = piece.strip_prefix(b"W/").unwrap_or(piece);
        match tags.iter().position(|tag| tag.as_bytes() == opaque) {
            Some(at) if at == preferred => return Match::Tag(at),
            Some(at) => found = Match::Tag(at),
            None => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &actix_web::http::header::HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn the_coding_follows_q_values_then_our_preference() {
        let check = |accept: &[&str], expected| {
            assert_eq!(
                coding(&headers(&ACCEPT_ENCODING, accept)),
                expected,
                "{accept:?}"
            );
        };
        check(&[], Coding::Identity);
        check(&[""], Coding::Identity);
        check(&["gzip"], Coding::Gzip);
        check(&["x-gzip"], Coding::Gzip);
        check(&["GZIP"], Coding::Gzip);
        check(&["gzip, deflate, br, zstd"], Coding::Brotli);
        check(&["gzip, zstd"], Coding::Zstd);
        check(&["gzip", "br"], Coding::Brotli);
        check(&["br;q=0.5, gzip;q=0.8"], Coding::Gzip);
        check(&["br ; q=0.899 , gzip ; Q=0.9"], Coding::Gzip);
        check(&["gzip;q=0"], Coding::Identity);
        check(&["*"], Coding::Brotli);
        check(&["*;q=0"], Coding::Identity);
        check(&["br;q=0, *"], Coding::Zstd);
        check(&["identity"], Coding::Identity);
        check(&["identity;q=1, gzip;q=0.5"], Coding::Identity);
        check(&["identity;q=0.5, gzip"], Coding::Gzip);
        check(&["identity;q=0"], Coding::Identity);
        check(&["identity;q=0, gzip;q=0.1"], Coding::Gzip);
        check(&["gzip;q=0.001"], Coding::Gzip);
        check(&["gzip;q=nonsense, deflate"], Coding::Identity);
        check(&["gzip;q=0.0001"], Coding::Identity);
        check(&["deflate, compress"], Coding::Identity);
    }

    #[test]
    fn tags_are_compared_weakly_and_in_lists() {
        let tags = ["\"t-br\"", "\"t-zstd\"", "\"t-gzip\"", "\"t\""].map(HeaderValue::from_static);
        let check = |sent: &[&str], expected| {
            assert_eq!(
                if_none_match(&headers(&IF_NONE_MATCH, sent), &tags, 3),
                expected,
                "{sent:?}"
            );
        };
        check(&[], Match::Absent);
        check(&["\"t\""], Match::Tag(3));
        check(&["W/\"t\""], Match::Tag(3));
        check(&["\"t-gzip\""], Match::Tag(2));
        check(&["W/\"t-br\""], Match::Tag(0));
        check(&["\"a\", \"t-gzip\" , \"t\""], Match::Tag(3));
        check(&["\"a\"", "\"t-zstd\""], Match::Tag(1));
        check(&["*"], Match::Any);
        check(&["\"a\""], Match::None);
        check(&["t"], Match::None);
        check(&["\"T\""], Match::None);
        check(&["\"a,t\""], Match::None);
        check(&[""], Match::None);
    }
}

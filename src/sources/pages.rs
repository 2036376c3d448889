//! Reads a paged list of the management API as one whole.
//!
//! Pages are offsets into a live list: what is deleted in between moves a later item onto a page that was read already.
//! So items are told apart by `id`, every page must report the same `total`, and in the end there must be that many;
//! otherwise the list has shifted and is read again from the start.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{
    FetchError,
    http::{Answer, Ask, Class, Http, content_type, endpoint},
    json::Members,
};

/// Items per page; GrowthBook's maximum.
const PAGE_ITEMS: u32 = 100;

/// How often a list that shifts is read within one fetch.
const READS_MAX: u32 = 3;

/// Most pages of one read: an upstream that always promises more must not be followed for ever.
const PAGES_MAX: u32 = 1000;

/// A list of the management API.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListSpec<'a> {
    /// Last part of the path, below `/api/v1/`.
    pub(super) path: &'static str,
    /// Member that holds the items.
    pub(super) member: &'static str,
    /// Only items of this project; empty: all.
    pub(super) project: &'a str,
}

/// A list that was read as a whole.
pub(super) struct List {
    /// The items in upstream's order, byte for byte, each id once.
    pub(super) items: Vec<Box<RawValue>>,
    /// Requests that it took.
    pub(super) pages: u32,
}

/// Where and within what limits a list is read.
pub(super) struct Reader<'a> {
    pub(super) http: &'a Http,
    pub(super) rest_host: &'a reqwest::Url,
    /// Largest list, in bytes over all pages.
    pub(super) limit_bytes: usize,
    pub(super) deadline: Instant,
}

impl Reader<'_> {
    /// Reads all pages; a list that shifts is read again while requests are left for it.
    pub(super) async fn read(&self, spec: ListSpec<'_>) -> Result<List, FetchError> {
        for reads in 1..=READS_MAX {
            let mut pass = Pass::default();
            if self.read_once(spec, &mut pass).await? {
                return Ok(pass.into_list());
            }
            tracing::debug!(list = spec.member, reads, "list shifted while it was read");
            if !self.http.affords(pass.pages) {
                return Err(FetchError::Shifting { reads });
            }
        }
        Err(FetchError::Shifting { reads: READS_MAX })
    }

    /// Gives `false` as soon as the list is seen to have shifted.
    async fn read_once(&self, spec: ListSpec<'_>, pass: &mut Pass) -> Result<bool, FetchError> {
        while pass.pages < PAGES_MAX {
            let mut url = endpoint(self.rest_host, &["api", "v1", spec.path]);
            url.query_pairs_mut()
                .append_pair("limit", &PAGE_ITEMS.to_string())
                .append_pair("offset", &pass.received.to_string());
            if !spec.project.is_empty() {
                url.query_pairs_mut().append_pair("projectId", spec.project);
            }
            let ask = Ask {
                url,
                class: Class::Rest,
                validator: None,
                limit_bytes: self.limit_bytes.saturating_sub(pass.bytes),
                deadline: self.deadline,
            };
            let (body, content_type) = match self.http.get(&ask).await {
                Ok(Answer::Body { body, headers }) => (body, content_type(&headers)),
                // Only sent for a validator, and none was given.
                Ok(Answer::NotModified { .. }) => {
                    return Err(shape("304 without a condition".to_owned()));
                }
                // The limit is for all pages together, so that is what the error names.
                Err(FetchError::TooLarge { .. }) => {
                    return Err(FetchError::TooLarge {
                        limit_bytes: self.limit_bytes,
                    });
                }
                Err(error) => return Err(error),
            };
            let page = Page::read(&body, spec.member, &content_type)?;
            pass.bytes += body.len();
            match pass.take(page) {
                Progress::More => {}
                Progress::Complete => return Ok(true),
                Progress::Shifted => return Ok(false),
            }
        }
        Ok(false)
    }
}

/// One page, as far as its outer shape goes.
struct Page<'a> {
    items: Vec<&'a RawValue>,
    total: u64,
    has_more: Option<bool>,
}

impl<'a> Page<'a> {
    fn read(body: &'a [u8], member: &str, content_type: &str) -> Result<Self, FetchError> {
        let members = Members::read(body, content_type)?;
        let missing = |name: &str| shape(format!("the list has no `{name}`"));
        Ok(Self {
            items: members.typed(member)?.ok_or_else(|| missing(member))?,
            total: members.typed("total")?.ok_or_else(|| missing("total"))?,
            has_more: members.typed("hasMore")?,
        })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    More,
    Complete,
    Shifted,
}

/// One read from the first page on.
#[derive(Default)]
struct Pass {
    items: Vec<Box<RawValue>>,
    /// Place in `items` of each id.
    places: HashMap<String, usize>,
    total: Option<u64>,
    /// Items on all pages, repeated ones included: the offset of the next page. `nextOffset` is not followed, because
    /// it skips items where a page is shorter than it says.
    received: u64,
    pages: u32,
    bytes: usize,
}

impl Pass {
    fn take(&mut self, page: Page<'_>) -> Progress {
        self.pages += 1;
        if *self.total.get_or_insert(page.total) != page.total {
            return Progress::Shifted;
        }
        let count = u64::try_from(page.items.len()).unwrap_or(u64::MAX);
        self.received += count;
        for item in page.items {
            self.keep(item);
        }
        let has_more = page.has_more.unwrap_or(self.received < page.total);
        let is_whole = u64::try_from(self.items.len()).unwrap_or(u64::MAX) == page.total;
        match (has_more, is_whole) {
            // A page without items that promises more leads nowhere.
            (true, _) if count > 0 => Progress::More,
            (false, true) => Progress::Complete,
            _ => Progress::Shifted,
        }
    }

    /// Keeps an item; of one id the last, which is the newest. One without an id is for validation to judge.
    fn keep(&mut self, item: &RawValue) {
        #[derive(Deserialize)]
        struct Id {
            id: String,
        }
        let id = serde_json::from_str(item.get()).map(|Id { id }| id).ok();
        let known = id.as_ref().and_then(|id| self.places.get(id).copied());
        if let Some(place) = known {
            self.items[place] = item.to_owned();
            return;
        }
        if let Some(id) = id {
            self.places.insert(id, self.items.len());
        }
        self.items.push(item.to_owned());
    }

    fn into_list(self) -> List {
        List {
            items: self.items,
            pages: self.pages,
        }
    }
}

impl List {
    /// The list as one document, with further lists beside it: `{"<member>":[…],"total":N,"<other>":[…]}`.
    pub(super) fn to_document(&self, member: &str, others: &[(&str, Self)]) -> Vec<u8> {
        let mut out = vec![b'{'];
        self.write(member, &mut out);
        out.extend_from_slice(format!(",\"total\":{}", self.items.len()).as_bytes());
        for (member, other) in others {
            out.push(b',');
            other.write(member, &mut out);
        }
        out.push(b'}');
        out
    }

    fn write(&self, member: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("\"{member}\":[").as_bytes());
        for (i, item) in self.items.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(item.get().as_bytes());
        }
        out.push(b']');
    }
}

fn shape(message: String) -> FetchError {
    FetchError::Shape { message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(pass: &mut Pass, body: &str) -> Progress {
        pass.take(Page::read(body.as_bytes(), "experiments", "").unwrap())
    }

    #[test]
    fn pages_become_one_document_with_the_items_as_they_were() {
        let mut pass = Pass::default();
        let first = r#"{"experiments":[{"id":"a","x":1.0},{"id":"b"}],"total":3,"hasMore":true}"#;
        assert_eq!(take(&mut pass, first), Progress::More);
        assert_eq!(pass.received, 2);
        let second = r#"{"experiments":[{"id": "c"}],"total":3,"hasMore":false}"#;
        assert_eq!(take(&mut pass, second), Progress::Complete);
        let document = pass.into_list().to_document("experiments", &[]);
        assert_eq!(
            String::from_utf8(document).unwrap(),
            r#"{"experiments":[{"id":"a","x":1.0},{"id":"b"},{"id": "c"}],"total":3}"#
        );
    }

    #[test]
    fn a_repeated_id_counts_once_and_the_last_is_kept() {
        let mut pass = Pass::default();
        let first = r#"{"experiments":[{"id":"a","v":1},{"id":"b"}],"total":2,"hasMore":true}"#;
        take(&mut pass, first);
        let second = r#"{"experiments":[{"id":"a","v":2}],"total":2,"hasMore":false}"#;
        assert_eq!(take(&mut pass, second), Progress::Complete);
        assert_eq!(pass.items[0].get(), r#"{"id":"a","v":2}"#);
    }

    #[test]
    fn items_without_an_id_are_kept_one_by_one() {
        let mut pass = Pass::default();
        let page = r#"{"experiments":[{},{"id":7},"x",{"id":"a"}],"total":4,"hasMore":false}"#;
        assert_eq!(take(&mut pass, page), Progress::Complete);
    }

    #[test]
    fn every_contradiction_is_a_shift() {
        let page = |items: &str, total: u32, more: bool| {
            format!(r#"{{"experiments":[{items}],"total":{total},"hasMore":{more}}}"#)
        };
        for (what, body) in [
            ("ends early", page(r#"{"id":"a"}"#, 2, false)),
            ("too many", page(r#"{"id":"a"},{"id":"b"}"#, 1, false)),
            ("empty but more", page("", 2, true)),
        ] {
            assert_eq!(
                take(&mut Pass::default(), &body),
                Progress::Shifted,
                "{what}"
            );
        }
        let mut pass = Pass::default();
        take(&mut pass, &page(r#"{"id":"a"}"#, 2, true));
        let other_total = page(r#"{"id":"b"},{"id":"c"}"#, 3, false);
        assert_eq!(take(&mut pass, &other_total), Progress::Shifted);
    }

    #[test]
    fn a_page_that_is_no_list_has_the_wrong_shape() {
        for body in [
            "{}",
            "[]",
            r#"{"experiments":[]}"#,
            r#"{"experiments":{},"total":0}"#,
            r#"{"experiments":[],"total":"0"}"#,
            r#"{"message":"Unknown API endpoint"}"#,
        ] {
            let error = Page::read(body.as_bytes(), "experiments", "")
                .err()
                .unwrap();
            assert_eq!(error.code(), "bad_shape", "{body}");
        }
        let empty = r#"{"experiments":[],"total":0,"hasMore":false}"#;
        assert_eq!(take(&mut Pass::default(), empty), Progress::Complete);
    }
}

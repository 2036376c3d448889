//! How a revision and an input are kept: compressed, checked, and without the revision number.
//!
//! A packed candidate is one zstd frame (with zstd's own checksum) of
//!
//! ```text
//! stitchd-revision 1\n
//! {"hash":…,"meta":…,"created_at":…,"tail_bytes":…,"documents":[{"name":…,"body_bytes":…,…},…]}\n
//! <the snapshot's tail><the first document><the second>…
//! ```
//!
//! A candidate with overrides has its base in the header's `base`, in the same form, and its bytes at the end; of the base's
//! documents those that overrides did not change are only named.
//!
//! The number is a column or part of a file name, so a candidate is packed before its number is allotted. A packed blob is a
//! zstd frame of `stitchd-blob 1 <bytes> <sha-256>\n` and the bytes.

mod meta;

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::{iter, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use self::meta::Meta;
use super::StoreError;
use crate::model::{Candidate, Document, Evaluators, SnapshotMeta, snapshot::hex};

/// First line of a candidate; the number rises when the format changes.
const REVISION_MAGIC: &[u8] = b"stitchd-revision 1";

/// First words of a blob.
const BLOB_MAGIC: &str = "stitchd-blob 1";

/// Most that a frame may unpack to. Hundreds of times what a large organisation has; a damaged or foreign frame that claims
/// more is refused before it takes the memory.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;

/// zstd's own default: 10 MB of JSON take some 30 ms.
const LEVEL: i32 = 3;

#[derive(Serialize, Deserialize)]
struct Header {
    hash: String,
    meta: Meta,
    created_at: Moment,
    tail_bytes: usize,
    documents: Vec<DocumentHeader>,
    /// See [`Candidate::base`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<Box<Header>>,
}

impl Header {
    fn read(line: &[u8]) -> Result<Self, StoreError> {
        serde_json::from_slice(line).map_err(|error| corrupt_revision(error.to_string()))
    }
}

#[derive(Serialize, Deserialize)]
struct DocumentHeader {
    name: String,
    body_bytes: usize,
    last_modified: Moment,
    members: Vec<String>,
    /// See [`Document::content`]; where it is there, the revision's hash says nothing of the bytes, and `tag` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    /// Of a base: it is the document of the same name above, and `body_bytes` is 0.
    #[serde(default, skip_serializing_if = "is_false")]
    is_shared: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Unix seconds and nanoseconds: a moment comes back exactly.
#[derive(Serialize, Deserialize)]
struct Moment(i64, u32);

impl Moment {
    fn new(at: OffsetDateTime) -> Self {
        Self(at.unix_timestamp(), at.nanosecond())
    }

    fn read(&self) -> Result<OffsetDateTime, StoreError> {
        OffsetDateTime::from_unix_timestamp(self.0)
            .and_then(|at| at.replace_nanosecond(self.1))
            .map_err(|error| corrupt_revision(error.to_string()))
    }
}

/// Packs everything about a candidate but its environment.
pub fn pack_candidate(candidate: &Candidate) -> Bytes {
    let mut header = header(candidate, None);
    let base = candidate.base.as_deref();
    header.base = base.map(|base| Box::new(self::header(base, Some(candidate))));
    let header = serde_json::to_vec(&header).expect("strings and numbers always serialise");
    let head = [
        REVISION_MAGIC,
        b"\n",
        &header,
        b"\n",
        &candidate.snapshot_tail,
    ];
    let bodies = candidate.documents.iter().map(|d| d.body.as_ref());
    let below = base.into_iter().flat_map(|base| {
        let own = base.documents.iter();
        let own = own.filter(|document| !is_shared(document, candidate));
        iter::once(base.snapshot_tail.as_ref()).chain(own.map(|d| d.body.as_ref()))
    });
    compress(head.into_iter().chain(bodies).chain(below))
}

/// Whether a base's document is there already.
fn is_shared(document: &Arc<Document>, above: &Candidate) -> bool {
    let there = above.document(&document.name);
    there.is_some_and(|there| Arc::ptr_eq(there, document))
}

fn header(candidate: &Candidate, above: Option<&Candidate>) -> Header {
    let document = |document: &Arc<Document>| {
        let is_shared = above.is_some_and(|above| is_shared(document, above));
        DocumentHeader {
            name: document.name.to_string(),
            body_bytes: if is_shared { 0 } else { document.body.len() },
            last_modified: Moment::new(document.last_modified),
            members: document.members.clone(),
            content: document.content.clone(),
            tag: document.content.as_ref().map(|_| document.tag.clone()),
            is_shared,
        }
    };
    Header {
        hash: candidate.hash.clone(),
        meta: Meta::from(&candidate.meta),
        created_at: Moment::new(candidate.created_at),
        tail_bytes: candidate.snapshot_tail.len(),
        documents: candidate.documents.iter().map(document).collect(),
        base: None,
    }
}

/// What is known about a packed candidate without unpacking its bytes.
pub(super) struct Head {
    pub(super) hash: String,
    pub(super) meta: SnapshotMeta,
    pub(super) created_at: OffsetDateTime,
    /// See [`Candidate::size_bytes`].
    pub(super) size_bytes: u64,
}

/// Reads the beginning of a packed candidate; fails when it is none. The rest may be harmed all the same.
pub(super) fn read_head(packed: &[u8]) -> Result<Head, StoreError> {
    let mut lines = [Vec::new(), Vec::new()];
    let mut read = || -> io::Result<()> {
        let decoder = zstd::Decoder::with_buffer(packed)?.take(UNPACKED_BYTES_MAX);
        let mut decoder = BufReader::new(decoder);
        for line in &mut lines {
            decoder.read_until(b'\n', line)?;
        }
        Ok(())
    };
    read().map_err(|error| corrupt_revision(error.to_string()))?;
    let [magic, header] = &lines;
    if magic.trim_ascii_end() != REVISION_MAGIC {
        return Err(corrupt_revision("an unknown format"));
    }
    let header = Header::read(header)?;
    let bodies = header.documents.iter().map(|document| document.body_bytes);
    Ok(Head {
        size_bytes: (header.tail_bytes + bodies.sum::<usize>()) as u64,
        created_at: header.created_at.read()?,
        hash: header.hash,
        meta: header.meta.into(),
    })
}

/// Restores a candidate, byte for byte; fails when anything does not fit its lengths or its hash.
pub fn unpack_candidate(environment: &str, packed: &[u8]) -> Result<Candidate, StoreError> {
    let unpacked = decompress(packed).map_err(|error| corrupt_revision(error.to_string()))?;
    let (magic, rest) = split_line(&unpacked).ok_or_else(|| corrupt_revision("no first line"))?;
    if magic != REVISION_MAGIC {
        return Err(corrupt_revision("an unknown format"));
    }
    let (header, mut rest) = split_line(rest).ok_or_else(|| corrupt_revision("no header"))?;
    let mut header = Header::read(header)?;
    let base = header.base.take();
    let mut candidate = read_candidate(environment, header, &mut rest, None)?;
    if let Some(base) = base {
        let base = read_candidate(environment, *base, &mut rest, Some(&candidate))?;
        candidate.base = Some(Arc::new(base));
    }
    if !rest.is_empty() {
        return Err(corrupt_revision("it is longer than its header says"));
    }
    Ok(candidate)
}

/// Reads one candidate off the beginning of `rest`.
fn read_candidate(
    environment: &str,
    header: Header,
    rest: &mut &[u8],
    above: Option<&Candidate>,
) -> Result<Candidate, StoreError> {
    // Copied, not sliced: a slice would keep all of the unpacked bytes in memory as long as any document lives.
    let mut take = |length: usize| {
        let (body, behind) = rest.split_at_checked(length)?;
        *rest = behind;
        Some(Bytes::copy_from_slice(body))
    };
    let truncated = || corrupt_revision("it is shorter than its header says");
    let snapshot_tail = take(header.tail_bytes).ok_or_else(truncated)?;
    let mut documents = Vec::with_capacity(header.documents.len());
    for document in header.documents {
        if document.is_shared {
            let shared = above.and_then(|above| above.document(&document.name));
            let shared = shared.ok_or_else(|| corrupt_revision("a shared document is missing"))?;
            documents.push(Arc::clone(shared));
            continue;
        }
        let body = take(document.body_bytes).ok_or_else(truncated)?;
        let last_modified = document.last_modified.read()?;
        let read = Document::new(document.name, body, last_modified, document.members)
            .with_content(document.content);
        if document.tag.is_some_and(|tag| tag != read.tag) {
            return Err(corrupt_revision("a document does not match its tag"));
        }
        documents.push(Arc::new(read));
    }
    if Candidate::content_hash(&snapshot_tail, &documents) != header.hash {
        return Err(corrupt_revision("its content does not match its hash"));
    }
    Ok(Candidate {
        environment: environment.into(),
        hash: header.hash,
        snapshot_tail,
        documents,
        meta: header.meta.into(),
        created_at: header.created_at.read()?,
        evaluators: Evaluators::default(),
        base: None,
    })
}

/// Packs any bytes.
pub fn pack_blob(bytes: &[u8]) -> Bytes {
    let digest = hex(&Sha256::digest(bytes));
    let head = format!("{BLOB_MAGIC} {} {digest}\n", bytes.len());
    compress([head.as_bytes(), bytes].into_iter())
}

/// Restores bytes packed by [`pack_blob`]; fails when they are not the same.
pub fn unpack_blob(packed: &[u8]) -> Result<Bytes, StoreError> {
    let corrupt = |problem: String| StoreError::corrupt("a stored input", problem);
    let unpacked = decompress(packed).map_err(|error| corrupt(error.to_string()))?;
    let (head, body) = split_line(&unpacked).ok_or_else(|| corrupt("no first line".to_owned()))?;
    let digest = hex(&Sha256::digest(body));
    if head != format!("{BLOB_MAGIC} {} {digest}", body.len()).as_bytes() {
        return Err(corrupt("its content does not match its hash".to_owned()));
    }
    let start = head.len() + 1;
    Ok(Bytes::from(unpacked).slice(start..))
}

fn corrupt_revision(problem: impl Into<String>) -> StoreError {
    StoreError::corrupt("a stored revision", problem)
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn compress<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Bytes {
    let write = || -> io::Result<Vec<u8>> {
        let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
        encoder.include_checksum(true)?;
        for part in parts {
            encoder.write_all(part)?;
        }
        encoder.finish()
    };
    Bytes::from(write().expect("a Vec takes every write, and the level is a valid one"))
}

fn decompress(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    let decoder = zstd::Decoder::with_buffer(packed)?;
    decoder
        .take(UNPACKED_BYTES_MAX + 1)
        .read_to_end(&mut unpacked)?;
    if unpacked.len() as u64 > UNPACKED_BYTES_MAX {
        return Err(io::Error::other(format!(
            "it unpacks to more than {UNPACKED_BYTES_MAX} bytes"
        )));
    }
    Ok(unpacked)
}

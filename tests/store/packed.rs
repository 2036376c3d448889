//! What is packed comes back the same, or not at all.

use std::sync::Arc;

use bytes::Bytes;
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
};
use stitchd::{
    model::{
        Candidate, Document, Evaluators, IssueSummary, KeptIssue, Severity, SnapshotMeta,
        SourceVersion,
    },
    store::{
        RevisionInfo, StoreError,
        packed::{pack_blob, pack_candidate, unpack_blob, unpack_candidate},
    },
};
use time::OffsetDateTime;

fn moments() -> impl Strategy<Value = OffsetDateTime> {
    // The years that the type holds.
    let seconds = -377_705_116_800_i64..=253_402_300_799;
    (seconds, 0..1_000_000_000_u32).prop_map(|(seconds, nanoseconds)| {
        let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        at.replace_nanosecond(nanoseconds).unwrap()
    })
}

fn documents() -> impl Strategy<Value = Arc<Document>> {
    let bodies = vec(any::<u8>(), 0..200);
    ("[a-z]{1,8}", bodies, moments(), vec(any::<String>(), 0..3)).prop_map(
        |(name, body, last_modified, members)| {
            Arc::new(Document::new(
                name,
                Bytes::from(body),
                last_modified,
                members,
            ))
        },
    )
}

fn issues() -> impl Strategy<Value = IssueSummary> {
    let issue =
        (any::<bool>(), "[a-z_]{1,9}", any::<String>()).prop_map(|(is_error, code, text)| {
            let severity = if is_error {
                Severity::Error
            } else {
                Severity::Warning
            };
            KeptIssue {
                severity,
                code: code.into(),
                source: "gb".to_owned(),
                path: text.clone(),
                message: text,
            }
        });
    (any::<u16>(), any::<u16>(), vec(issue, 0..3)).prop_map(|(errors, warnings, first)| {
        IssueSummary {
            errors: errors.into(),
            warnings: warnings.into(),
            first,
        }
    })
}

/// Who wanted it and why, of what it was made, what was wrong with it.
fn provenance() -> impl Strategy<Value = SnapshotMeta> {
    let version =
        ("[0-9a-f]{8}", any::<i64>()).prop_map(|(digest, accepted_at_ms)| SourceVersion {
            digest,
            accepted_at_ms,
        });
    (
        option::of(any::<String>()),
        option::of(any::<String>()),
        option::of(any::<u64>()),
        btree_map("[a-z-]{1,9}", version, 0..3),
        option::of(issues()),
    )
        .prop_map(
            |(author, reason, pinned_from, versions, issues)| SnapshotMeta {
                author,
                reason,
                pinned_from,
                versions,
                issues,
                ..SnapshotMeta::default()
            },
        )
}

fn candidates() -> impl Strategy<Value = Candidate> {
    let tails = vec(any::<u8>(), 0..500);
    let metas = (
        vec("[a-z-]{1,9}", 0..3),
        any::<u16>(),
        any::<u16>(),
        any::<String>(),
        provenance(),
    );
    (tails, vec(documents(), 0..4), metas, moments()).prop_map(
        |(tail, documents, (sources, features, experiments, cause, provenance), created_at)| {
            Candidate {
                environment: "production".into(),
                hash: Candidate::content_hash(&tail, &documents),
                snapshot_tail: Bytes::from(tail),
                documents,
                meta: SnapshotMeta {
                    sources,
                    features: features.into(),
                    experiments: experiments.into(),
                    cause,
                    ..provenance
                },
                created_at,
                evaluators: Evaluators::default(),
                base: None,
            }
        },
    )
}

/// Lays something over a candidate: another tail, and another body in every second document.
fn laid_over(base: Candidate) -> Candidate {
    let mut above = base.clone();
    above.snapshot_tail = [b"above:", &base.snapshot_tail[..]].concat().into();
    for document in above.documents.iter_mut().step_by(2) {
        let body = [b"above:", &document.body[..]].concat().into();
        let members = document.members.clone();
        let laid = Document::new(
            Arc::clone(&document.name),
            body,
            document.last_modified,
            members,
        );
        *document = Arc::new(laid.with_content(Some("meaning".to_owned())));
    }
    above.hash = Candidate::content_hash(&above.snapshot_tail, &above.documents);
    above.base = Some(Arc::new(base));
    above
}

fn assert_same(a: &Candidate, b: &Candidate) {
    assert_eq!(a.environment, b.environment);
    assert_eq!(a.hash, b.hash);
    assert_eq!(a.snapshot_tail, b.snapshot_tail);
    assert_eq!(a.meta, b.meta);
    assert_eq!(a.created_at, b.created_at);
    assert_eq!(a.documents.len(), b.documents.len());
    for (a, b) in a.documents.iter().zip(&b.documents) {
        assert_eq!(a.name, b.name);
        assert_eq!(a.body, b.body);
        assert_eq!(a.tag, b.tag);
        assert_eq!(a.last_modified, b.last_modified);
        assert_eq!(a.members, b.members);
    }
    let (a, b) = (a.at_revision(7), b.at_revision(7));
    assert_eq!(a.published_at, b.published_at);
    assert_eq!(a.tail(), b.tail());
    assert_eq!(
        a.document("snapshot").unwrap().tag,
        b.document("snapshot").unwrap().tag
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_base_comes_back_and_what_overrides_left_alone_is_kept_once(mut base in candidates()) {
        // As in every candidate: sorted, each name once.
        base.documents.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        base.documents.dedup_by(|a, b| a.name == b.name);
        base.hash = Candidate::content_hash(&base.snapshot_tail, &base.documents);
        let above = laid_over(base);
        let read = unpack_candidate("production", &pack_candidate(&above)).unwrap();
        assert_same(&above, &read);
        let (base, read_base) = (above.base.as_ref().unwrap(), read.base.as_ref().unwrap());
        assert_same(base, read_base);
        for (below, above) in read_base.documents.iter().zip(&read.documents).skip(1).step_by(2) {
            assert!(Arc::ptr_eq(below, above));
        }
    }

    #[test]
    fn a_candidate_comes_back_the_same(candidate in candidates()) {
        let packed = pack_candidate(&candidate);
        prop_assert_eq!(&packed, &pack_candidate(&candidate));
        assert_same(&unpack_candidate("production", &packed).unwrap(), &candidate);
    }

    #[test]
    fn a_harmed_candidate_is_refused(candidate in candidates(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut packed = pack_candidate(&candidate).to_vec();
        let at = at.index(packed.len());
        packed[at] ^= 1_u8 << bit;
        // A few bits of a zstd frame carry nothing.
        if let Ok(unpacked) = unpack_candidate("production", &packed) {
            assert_same(&unpacked, &candidate);
        }
        packed.truncate(at);
        let truncated = unpack_candidate("production", &packed);
        let is_corrupt = matches!(truncated, Err(StoreError::Corrupt { .. }));
        prop_assert!(is_corrupt);
    }

    #[test]
    fn a_blob_comes_back_the_same(bytes in vec(any::<u8>(), 0..500)) {
        let packed = pack_blob(&bytes);
        prop_assert_eq!(&unpack_blob(&packed).unwrap()[..], &bytes[..]);
        prop_assert!(unpack_blob(&packed[..packed.len() - 1]).is_err());
    }
}

#[test]
fn content_that_does_not_match_its_hash_is_refused() {
    let mut candidate = crate::candidate("a");
    candidate.hash = "0".repeat(64);
    let error = unpack_candidate("production", &pack_candidate(&candidate)).unwrap_err();
    assert!(error.explain().contains("does not match its hash"));
}

#[test]
fn foreign_bytes_are_refused() {
    let blob = pack_blob(b"something else");
    for bytes in [&b""[..], b"{}", &blob] {
        let error = unpack_candidate("production", bytes).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }));
    }
}

#[test]
fn a_frame_that_unpacks_to_nonsense_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 19).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..1025 {
        std::io::Write::write_all(&mut encoder, &zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let error = unpack_blob(&bomb).unwrap_err();
    assert!(error.explain().contains("it unpacks to more than"));
}

#[test]
fn what_an_older_release_packed_is_read() {
    let tail = "\"features\":{}}";
    let hash = Candidate::content_hash(tail.as_bytes(), &[]);
    let header = serde_json::json!({
        "hash": hash,
        "meta": {"sources": ["gb"], "features": 0, "experiments": 0, "cause": "poll gb"},
        "created_at": [1_700_000_000, 5], "tail_bytes": tail.len(), "documents": [],
    });
    let plain = format!("stitchd-revision 1\n{header}\n{tail}");
    let packed = zstd::encode_all(plain.as_bytes(), 3).unwrap();
    let meta = SnapshotMeta {
        sources: vec!["gb".to_owned()],
        cause: "poll gb".to_owned(),
        ..SnapshotMeta::default()
    };
    let candidate = unpack_candidate("production", &packed).unwrap();
    assert_eq!(candidate.meta, meta);
    let info = RevisionInfo::of_packed(3, &packed).unwrap();
    assert_eq!((info.revision, info.hash), (3, hash));
    assert_eq!((info.meta, info.size_bytes), (meta, tail.len() as u64));
}

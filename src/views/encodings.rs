//! Compressed copies of a document, at levels that cost milliseconds per megabyte.

use std::io::{self, Write as _};

use bytes::Bytes;

use crate::model::Encodings;

/// Compresses one body three ways.
pub fn encodings(body: &[u8]) -> Encodings {
    Encodings {
        gzip: gzip(body),
        brotli: brotli(body),
        zstd: zstd(body),
    }
}

/// gzip, level 6.
pub fn gzip(body: &[u8]) -> Bytes {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    in_memory(gzip.write_all(body));
    in_memory(gzip.finish()).into()
}

/// Brotli, quality 5.
pub fn brotli(body: &[u8]) -> Bytes {
    let mut brotli = Vec::new();
    let parameters = brotli::enc::BrotliEncoderParams {
        quality: 5,
        size_hint: body.len(),
        ..Default::default()
    };
    let mut input = body;
    in_memory(brotli::BrotliCompress(&mut input, &mut brotli, &parameters));
    brotli.into()
}

/// Zstandard, level 3.
pub fn zstd(body: &[u8]) -> Bytes {
    in_memory(zstd::bulk::compress(body, 3)).into()
}

/// What was done in memory. An empty body must never stand in for one that could not be made.
fn in_memory<T>(done: io::Result<T>) -> T {
    done.expect("compressing into memory does no I/O")
}

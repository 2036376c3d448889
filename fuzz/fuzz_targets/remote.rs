//! Any payload and any request, in both dialects: evaluation ends, does not panic, and says the same in both ways.
//!
//! An input is a payload, a line feed and a request; what is no JSON is passed over.
#![no_main]

#[allow(dead_code, reason = "one way into the evaluator is used here")]
#[path = "../../src/eval/mod.rs"]
mod eval;

use eval::{Dialect, Remote, RemoteRequest, StickyBuckets};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
        return;
    };
    let (Ok(payload), Ok(request)) = (
        serde_json::from_slice::<Value>(&input[..end]),
        RemoteRequest::parse(&input[end + 1..]),
    ) else {
        return;
    };
    for dialect in [Dialect::Strict, Dialect::Legacy] {
        let remote = Remote::new(&payload, dialect);
        for is_sticky in [false, true] {
            let buckets = || is_sticky.then(StickyBuckets::default);
            let quick = remote.answer(&request, buckets().as_ref());
            let plain = remote.answer_plainly(&payload, &request, buckets().as_ref());
            assert_eq!(String::from_utf8_lossy(&quick), plain);
        }
    }
});

//! More than half of a limit: still served, and somebody should know before it is reached.
//!
//! What is over a limit is refused or quarantined by [`crate::pipeline::validate`], and by the client where it is the size
//! of a body.

use crate::model::Issue;

/// Issue code.
pub const CODE: &str = "near_limit";

/// Whether a number is over half of its limit.
pub fn is_near(number: usize, limit: usize) -> bool {
    number > limit / 2
}

/// Warns of a part of an input whose bytes are over half of the limit.
pub fn of_bytes(source: &str, part: &str, bytes: usize, limit: usize) -> Option<Issue> {
    warn(source, part, "bytes", bytes, limit)
}

/// Warns where something has more than half as much of `what` as it may have.
pub fn warn(source: &str, path: &str, what: &str, number: usize, limit: usize) -> Option<Issue> {
    is_near(number, limit).then(|| Issue::warning(CODE, source, path, message(what, number, limit)))
}

/// What is said of a number that is near its limit.
pub fn message(what: &str, number: usize, limit: usize) -> String {
    format!("has {number} {what}; more than {limit} are refused")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_a_limit_is_no_warning_and_more_is() {
        assert_eq!(of_bytes("s", "payload", 50, 100), None);
        let issue = of_bytes("s", "payload", 51, 100).unwrap();
        assert_eq!((issue.code, issue.path.as_str()), ("near_limit", "payload"));
        assert_eq!(issue.message, "has 51 bytes; more than 100 are refused");
    }
}

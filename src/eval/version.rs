//! Versions as texts that order as versions do.

use super::js::{self, Actual};

/// GrowthBook's `paddedVersionString`: numeric parts padded to width 5, `~` behind a release.
pub(super) fn padded(version: Actual<'_>) -> String {
    let text = match version {
        Actual::Number(number) => js::number_text(number),
        Actual::String(text) if !text.is_empty() => text.to_owned(),
        _ => "0".to_owned(),
    };
    let text = text.strip_prefix('v').unwrap_or(&text);
    let text = text.split('+').next().unwrap_or_default();
    let mut padded = String::with_capacity(text.len() + 16);
    let mut parts = 0;
    for part in text.split(['-', '.']) {
        if parts > 0 {
            padded.push('-');
        }
        parts += 1;
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            padded.extend(std::iter::repeat_n(' ', 5_usize.saturating_sub(part.len())));
        }
        padded.push_str(part);
    }
    if parts == 3 {
        padded.push_str("-~");
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_padded() {
        for (version, expected) in [
            ("1.2.3", "    1-    2-    3-~"),
            ("v1.2.3-rc.1+build", "    1-    2-    3-rc-    1"),
            ("", "    0"),
            ("1..2", "    1--    2-~"),
            ("123456", "123456"),
        ] {
            assert_eq!(padded(Actual::String(version)), expected);
        }
    }
}

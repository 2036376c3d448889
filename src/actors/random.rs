//! Randomness for jitter; nothing here needs to be unpredictable.

use std::time::Duration;

/// A number in 0..1.
pub fn unit() -> f64 {
    // Without entropy every instance waits alike, which is what jitter was to avoid but breaks nothing.
    let bits = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

/// `base` varied by up to `share` of itself, up and down.
pub fn jittered(base: Duration, share: f64) -> Duration {
    base.mul_f64((1.0 + share * (unit() * 2.0 - 1.0)).max(0.0))
}

//! The service with everything embedded, its upstream included.
//!
//! [`upstream`] answers as GrowthBook does, and lies on request; tests use it too. [`content`] is what the demo's upstream
//! holds and [`script`] changes it every few seconds.
pub mod content;
pub mod script;
pub mod upstream;

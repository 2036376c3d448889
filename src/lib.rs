//! stitchd stands between GrowthBook and everything that needs experiment and feature configuration.
pub mod clock;
pub mod model;
pub mod settings;
pub mod store;

//! stitchd stands between GrowthBook and everything that needs experiment and feature configuration.
pub mod cli;
pub mod clock;
pub mod model;
pub mod pipeline;
pub mod settings;
pub mod views;

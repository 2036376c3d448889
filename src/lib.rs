//! stitchd stands between GrowthBook and everything that needs experiment and feature configuration.
//!
//! **A refresh.** A [`actors::poller`] decides that it is time, its [`actors::client`] fetches bytes, the
//! [`actors::config_service`] runs them through the [`pipeline`] (validate → adapt → stitch) and has the [`views`]
//! rendered, and the [`actors::store`] makes the result durable, current and known, in this order.
//!
//! **A read.** A handler in [`http`] asks its worker's [`actors::snapshot_reader`], which remembers the store's last
//! answer and asks again only when the revision has moved. Reads never wait for an upstream or a database.
//!
//! **A decision.** The first caller who wants one has the snapshot compiled ([`eval::Environment`]), off the request path;
//! later revisions are compiled before they are published. A request then is conditions, hashing and copying.
//!
//! Modules in reading order: [`eval`], [`model`], [`diff`], [`pipeline`], [`views`], [`sources`], [`store`], [`notify`], [`actors`], [`http`], [`cli`].

pub mod actors;
pub mod app;
pub mod cli;
pub mod clock;
pub mod diff;
pub mod eval;
pub mod http;
pub mod metrics;
pub mod model;
pub mod notify;
pub mod pipeline;
pub mod settings;
pub mod sources;
pub mod store;
pub mod telemetry;
pub mod views;

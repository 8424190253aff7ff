//! Everything that is tested from outside the crate, in one binary: linking is most of what a small test costs.
//!
//! `cargo test --test suite -- cluster` runs the tests of one module.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on must fail where it happens"
)]

#[path = "../../examples/upstream/service.rs"]
pub mod upstream_service;

mod support;

mod boots;
mod bundle;
mod cache;
mod certificates;
mod choices;
mod cluster;
mod decision;
mod deploy;
mod docs;
mod explain;
mod files;
mod generated;
mod http;
mod image;
mod install;
mod layering;
mod limits;
mod monitoring;
mod netboot;
mod observability;
mod olm;
mod olm_v1;
mod operator;
mod overrides;
mod page;
mod release;
mod scripts;
mod telemetry;
mod traces;
mod transfers;
mod trouble;
mod upstream;

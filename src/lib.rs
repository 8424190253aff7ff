//! Network boot of bare metal for Kubernetes: the right iPXE script for every machine, and the reason for it.
//!
//! | module | what it is | may use |
//! |---|---|---|
//! | [`boot`] | the domain: pure values and decisions | nothing of ours |
//! | [`build_info`] | the version as a metric | nothing of ours |
//! | [`crd`] | kinds of the cluster | nothing of ours |
//! | [`cli`] | every flag, variable and default | [`boot`] |
//! | [`cache_folder`] | a cache's folder without a server | [`server`] |
//! | [`migrate`] | from the Python bridge's files to overrides | [`boot`], [`crd`], [`server`] |
//! | [`offline`] | a folder of YAML without a server | [`boot`], [`server`] |
//! | [`netboot`] | ProxyDHCP, TFTP and boot programs, in a process of its own | [`boot`], [`cli`] |
//! | [`telemetry`] | logs and traces | [`cli`] |
//! | [`operator`] | keeps bridges running as objects of the cluster say | [`crd`], [`cli`], the listener of [`server`] |
//! | [`server`] | watches, inventory, API, listeners | [`boot`], [`crd`], [`cli`] |
//!
//! `docs/architecture.md` walks through a boot request and through a change of the cluster.

pub mod boot;
pub mod build_info;
pub mod cache_folder;
pub mod cli;
pub mod crd;
pub mod explain;
pub mod migrate;
pub mod netboot;
pub mod offline;
pub mod operator;
pub mod server;
pub mod telemetry;

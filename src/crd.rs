//! Kinds of the cluster that the bridge reads.

pub mod foreign;

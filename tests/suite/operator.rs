//! The operator against a real kube-apiserver, under its own ServiceAccount with the role that is shipped.

mod builders;
mod lifecycle;

use std::time::Duration;

use crate::support::bridge::eventually;
use crate::support::operator::{NAMESPACE, Site};

const SECOND: Duration = Duration::from_secs(1);
/// What a change may take on a machine that runs all tests at once.
const SOON: Duration = Duration::from_secs(15);

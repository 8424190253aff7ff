//! Which version of the program runs, as a metric: each command has its own prefix.

use prometheus_client::metrics::{family::Family, gauge::Gauge};
use prometheus_client::registry::Registry;

/// Adds `build_info`, which is always 1, with the version in a label.
pub fn register(registry: &mut Registry) {
    let build = Family::<[(&'static str, &'static str); 1], Gauge>::default();
    build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
    registry.register("build_info", "Always 1; the version of the program", build);
}

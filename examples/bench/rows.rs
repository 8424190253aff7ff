//! All rows, in the order of the table.

pub mod bystander;
pub mod cold;
pub mod inventory;
pub mod machines;
pub mod scripts;
pub mod tracing;
pub mod warm;

use crate::row::Row;

/// All rows.
pub fn all() -> Vec<Row> {
    let groups = [
        warm::rows(),
        cold::rows(),
        scripts::rows(),
        tracing::rows(),
        vec![inventory::row(), machines::row(), bystander::row()],
    ];
    groups.into_iter().flatten().collect()
}

//! Medians, spreads, percentiles.

use anyhow::Context as _;

/// The middle of several figures, the lowest and the highest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median; between two it is the lower one plus half of what is between them.
    pub median: f64,
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_by(f64::total_cmp);
        let (low, high) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median = match figures.len() % 2 {
            1 => figures[middle],
            _ => figures[middle - 1].midpoint(figures[middle]),
        };
        Some(Self { median, low, high })
    }
}

/// The value that this part of the figures does not exceed (nearest rank).
pub fn percentile(figures: &mut [f64], part: f64) -> anyhow::Result<f64> {
    figures.sort_by(f64::total_cmp);
    let rank = (figures.len() as f64 * part).ceil() as usize;
    figures.get(rank.saturating_sub(1)).copied().context("no figures")
}

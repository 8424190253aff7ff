//! Documents of YAML and JSON, read within limits, with the place of what is wrong.

use crate::crd::foreign::without_values;

/// A line of the document, counted from 1 (0 where none is known), and what is wrong there.
pub type Wrong = (usize, String);

/// Parses within limits that grow with the text: a long list is no attack, a short text that unfolds into millions of nodes is.
pub fn parse<T: serde::de::DeserializeOwned>(document: &str) -> Result<T, Wrong> {
    let most = document.len().max(250_000);
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: most, max_events: most.max(1_000_000) },
    };
    serde_saphyr::from_str_with_options(document, options).map_err(wrong)
}

/// Line within the document and cause, without the excerpt that the parser adds: a line of a manifest may hold a token.
fn wrong(error: serde_saphyr::Error) -> Wrong {
    let line = error
        .location()
        .map_or(0, |location| usize::try_from(location.line()).unwrap_or(0));
    let error = error.without_snippet().to_string();
    (line, without_values(error.lines().next().unwrap_or_default()))
}

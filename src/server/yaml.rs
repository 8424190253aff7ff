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
    (
        line,
        without_values(&without_places(error.lines().next().unwrap_or_default())),
    )
}

/// The parser's words without its own ` at line 2, column 4`: it counts within the document, not within the file.
fn without_places(message: &str) -> String {
    let mut parts = message.split(" at line ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let behind = part.trim_start_matches(|c: char| c.is_ascii_digit());
        text.push_str(match behind.strip_prefix(", column ") {
            Some(behind) => behind.trim_start_matches(|c: char| c.is_ascii_digit()),
            None => behind,
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_has_one_place_and_no_text() {
        for (document, line, message) in [
            ("a: 1\nb: [\n", 3, "unclosed bracket '['"),
            ("a: 1\nb: {\n", 3, "unclosed bracket '{'"),
        ] {
            let (at, cause) = parse::<serde_json::Value>(document).expect_err("broken");
            assert!(
                at <= line && cause.starts_with(message) && !cause.contains("at line"),
                "{at}: {cause}"
            );
        }
        assert_eq!(without_places("x at line 2, column 14: y at line 3"), "x: y");
        assert_eq!(without_places("at the door"), "at the door");
    }
}

//! Label selectors: which hosts an override means.

use std::collections::BTreeMap;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Requirements that labels must all meet, as in a `LabelSelector` of Kubernetes. Without any it selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector(Vec<Requirement>);

/// One requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// The label has one of these values.
    In(String, Vec<String>),
    /// The label is absent or has none of these values.
    NotIn(String, Vec<String>),
    /// The label is there.
    Exists(String),
    /// The label is not there.
    DoesNotExist(String),
}

impl Selector {
    /// All of these must be met.
    pub fn new(requirements: Vec<Requirement>) -> Self {
        Self(requirements)
    }

    /// Whether the labels meet every requirement.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::DoesNotExist(key) => !labels.contains_key(key),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_must_meet_every_requirement() {
        let labels: Labels = [("rack", "r1"), ("model", "x")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let values = |list: &[&str]| list.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        let rack = || "rack".to_owned();
        for (requirements, matches) in [
            (vec![], true),
            (vec![Requirement::In(rack(), values(&["r0", "r1"]))], true),
            (vec![Requirement::In(rack(), values(&["r0"]))], false),
            (vec![Requirement::NotIn(rack(), values(&["r0"]))], true),
            (vec![Requirement::NotIn("row".to_owned(), values(&["1"]))], true),
            (
                vec![Requirement::Exists(rack()), Requirement::DoesNotExist("row".to_owned())],
                true,
            ),
            (
                vec![Requirement::Exists(rack()), Requirement::DoesNotExist("model".to_owned())],
                false,
            ),
        ] {
            assert_eq!(
                Selector::new(requirements.clone()).matches(&labels),
                matches,
                "{requirements:?}"
            );
        }
    }
}

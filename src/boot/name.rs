//! Names of cluster objects: namespace and name, and how a person may write them.

use std::fmt;

use serde::{Serialize, Serializer};

/// Namespace and name of an object; printed `namespace/name`.
///
/// Both parts are lower-case DNS names (RFC 1123), since that is what the API server admits; a text of another shape cannot become
/// one, so a name may be pasted into a URL, a label of a script or a file name as it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    namespace: Box<str>,
    name: Box<str>,
}

/// A text that cannot name a cluster object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of an object: expected lower-case letters, digits, '-' and '.', at most 253 characters")]
pub struct NameError(String);

impl ObjectName {
    /// Both parts checked.
    pub fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
        for part in [namespace, name] {
            if !is_dns_name(part) {
                return Err(NameError(part.chars().take(60).collect()));
            }
        }
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
        })
    }

    /// A namespace and the value of a label that names an object in it. A label may hold more than a name does (RFC 1123 labels plus
    /// upper case and `_`): then no such object can exist, and saying so is better than taking the label for absent.
    pub fn of_label(namespace: &str, value: &str) -> Result<Self, NameError> {
        let is_label = value.len() <= 63
            && value
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        match is_dns_name(namespace) && is_label {
            true => Ok(Self {
                namespace: namespace.into(),
                name: value.into(),
            }),
            false => Err(NameError(value.chars().take(60).collect())),
        }
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name within the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A DNS subdomain of RFC 1123 as Kubernetes checks object names.
pub fn is_dns_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 253
        && text.split('.').all(|label| {
            label.bytes().next().is_some_and(inner)
                && label.bytes().next_back().is_some_and(inner)
                && label.bytes().all(|byte| inner(byte) || byte == b'-')
        })
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ObjectName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_the_api_server_admits_become_names() {
        for good in ["a", "lab", "lab-1", "4.16", "a.b-c.d"] {
            assert!(is_dns_name(good), "{good}");
        }
        for bad in ["", "Lab", "-a", "a-", "a..b", "a/b", "..", "a b", "ä", "${x}", "a\n"] {
            assert!(!is_dns_name(bad), "{bad}");
            assert!(ObjectName::new("ns", bad).is_err(), "{bad}");
        }
        assert!(!is_dns_name(&"a".repeat(254)));
    }
}

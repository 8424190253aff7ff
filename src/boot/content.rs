//! Scripts that a ConfigMap or Secret holds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use strum::Display;

use super::name::ObjectName;

/// The kinds of object that hold scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Display)]
pub enum ContentKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

/// An object that holds scripts; printed `ConfigMap lab/scripts`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentName {
    /// Its kind.
    pub kind: ContentKind,
    /// Namespace and name.
    pub object: ObjectName,
}

impl fmt::Display for ContentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.object)
    }
}

/// A key of such an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentKey {
    /// The object.
    pub content: ContentName,
    /// The key in it.
    pub key: String,
}

/// What such an object holds, or why that is not known.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// The object.
    pub name: ContentName,
    /// Its texts by key, `None` for one that is not text; or the reason why it cannot be read.
    pub texts: Result<BTreeMap<String, Option<Arc<str>>>, String>,
}

impl fmt::Debug for Content {
    /// Never the texts: they may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Result<Vec<_>, _> = self.texts.as_ref().map(|texts| texts.keys().collect());
        f.debug_struct("Content")
            .field("name", &self.name)
            .field("keys", &keys)
            .finish()
    }
}

impl Content {
    /// The text of a key, or what is missing.
    pub fn text(&self, key: &str) -> Result<&Arc<str>, String> {
        let texts = self.texts.as_ref().map_err(Clone::clone)?;
        match texts.get(key) {
            Some(Some(text)) => Ok(text),
            Some(None) => Err(format!("key {key:?} of {} is not text in UTF-8", self.name)),
            None => {
                let keys: Vec<&str> = texts.keys().map(String::as_str).collect();
                let has = match self.name.kind {
                    // Any machine may read this: not even the names of what is secret.
                    ContentKind::Secret => String::new(),
                    ContentKind::ConfigMap if keys.is_empty() => ", it is empty".to_owned(),
                    ContentKind::ConfigMap => format!(", it has {}", keys.join(", ")),
                };
                Err(format!("{} has no key {key:?}{has}", self.name))
            }
        }
    }
}

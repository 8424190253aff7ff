//! Why a bridge could not be brought to its plan.

use super::kind::Kind;
use super::reason::{Finding, Reason};

/// Why a bridge could not be brought to its plan.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The watches have not listed everything yet.
    #[error("the cluster's {0} are not listed yet")]
    NotListed(Kind),
    /// A request failed.
    #[error("failed to {verb} {what}")]
    Api {
        /// `apply`, `delete`, `read`.
        verb: &'static str,
        /// Kind and name.
        what: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object of that name is not the bridge's.
    #[error("{0} is there already and belongs to somebody else")]
    Taken(String),
    /// It took too long.
    #[error("the API server took too long")]
    Timeout,
    /// An object cannot be written as JSON.
    #[error("an object cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// A failed request.
    pub fn api(verb: &'static str, what: String) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self::Api {
            verb,
            what,
            source: Box::new(source),
        }
    }

    /// What a person has to know; `None` for what goes away by itself.
    pub fn finding(&self) -> Option<Finding> {
        let (verb, what, status) = match self {
            Self::Taken(what) => {
                let message =
                    format!("{what} is there already and belongs to somebody else: delete or rename it, or rename the bridge");
                return Some(Finding::new(Reason::NameTaken, message));
            }
            Self::Api { verb, what, source } => match &**source {
                kube::Error::Api(status) => (verb, what, status),
                _ => return None,
            },
            Self::NotListed(_) | Self::Timeout | Self::Json(_) => return None,
        };
        let said = &status.message;
        let is_of_namespace = said.starts_with("namespaces ") || said.contains("is being terminated");
        let (reason, message) = match status.code {
            404 | 403 if is_of_namespace => (
                Reason::NamespaceMissing,
                format!("the namespace for the pods cannot be used: {said}; create it"),
            ),
            403 => (Reason::Forbidden, format!("may not {verb} {what}: {said}")),
            400 | 422 => (Reason::Refused, format!("the API server refused {what}: {said}")),
            _ => return None,
        };
        Some(Finding::new(reason, message))
    }

    /// As metrics name it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotListed(_) => "not_listed",
            Self::Api { .. } => "api",
            Self::Taken(_) => "taken",
            Self::Timeout => "timeout",
            Self::Json(_) => "json",
        }
    }
}

/// An error and its causes in one line.
pub fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

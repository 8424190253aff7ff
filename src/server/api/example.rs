//! Examples for the OpenAPI document.

/// A MAC address.
pub fn mac() -> String {
    "52-54-00-cc-00-01".to_owned()
}

/// The cards of one machine.
pub fn nics() -> Option<String> {
    Some("52-54-00-cc-00-01,52-54-00-cc-00-11".to_owned())
}

/// A kind of artifact.
pub fn kind() -> String {
    "kernel".to_owned()
}

/// A namespace.
pub fn namespace() -> String {
    "lab".to_owned()
}

/// Name of an InfraEnv.
pub fn environment() -> String {
    "discovery".to_owned()
}

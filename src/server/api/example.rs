//! Examples for the OpenAPI document.

/// A MAC address.
pub fn mac() -> String {
    "52-54-00-cc-00-01".to_owned()
}

/// How a machine came: told by DHCP, then a boot program by TFTP.
pub fn way() -> Option<String> {
    Some("19ab8c9d0e1-t-3100-240-173792".to_owned())
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

/// A part of a MAC address.
pub fn search() -> Option<String> {
    Some("cc:00".to_owned())
}

/// Namespace and name of an InfraEnv.
pub fn full_environment() -> Option<String> {
    Some("lab/discovery".to_owned())
}

/// The number of a page.
pub fn page() -> Option<usize> {
    Some(1)
}

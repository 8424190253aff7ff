//! Values of flags: from text, or what was expected.

use std::str::FromStr;
use std::time::Duration;

use strum::VariantNames;
use url::Url;

use crate::boot::name::ObjectName;

/// Seconds as a plain number, or a time such as `90s` or `5m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => {
            humantime::parse_duration(text).map_err(|_| "expected seconds such as 90, or a time such as 90s or 5m".to_owned())
        }
    }
}

/// `NAMESPACE/NAME`.
pub fn object_name(text: &str) -> Result<ObjectName, String> {
    let (namespace, name) = text
        .split_once('/')
        .ok_or("expected a namespace and a name, such as lab/discovery")?;
    ObjectName::new(namespace, name).map_err(|error| error.to_string())
}

/// `HOST=ADDRESS`, the address without a path.
pub fn moved_host(text: &str) -> Result<(String, Url), String> {
    let expected = || "expected something like images.example.com=https://images.lab.svc:8080".to_owned();
    let (host, address) = text.split_once('=').ok_or_else(expected)?;
    let address = Url::parse(address).map_err(|_| expected())?;
    let is_bare = matches!(address.scheme(), "http" | "https")
        && address.path() == "/"
        && address.query().is_none()
        && address.fragment().is_none()
        && address.username().is_empty();
    match is_bare && !host.is_empty() {
        true => Ok((host.to_ascii_lowercase(), address)),
        false => Err(expected()),
    }
}

/// One of a fixed set of words, whatever its case.
pub fn word<T: FromStr + VariantNames>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("expected one of {}", T::VARIANTS.join(", ")))
}

//! Values of flags: from text, or what was expected.

use std::num::NonZeroU64;
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

/// A host name and a port.
pub fn host_and_port(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(text.to_owned()),
        _ => Err("expected a host name and a port, such as bridge-peers.boot.svc:9877".to_owned()),
    }
}

/// A number of bytes, with a suffix as Kubernetes writes quantities: `k`, `M`, `G`, `T` (powers of 1000), `Ki`, `Mi`, `Gi`, `Ti` (of
/// 1024).
pub fn bytes(text: &str) -> Result<NonZeroU64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let factor = match suffix {
        "" => Some(1),
        "k" => Some(1000),
        "M" => Some(1000_u64.pow(2)),
        "G" => Some(1000_u64.pow(3)),
        "T" => Some(1000_u64.pow(4)),
        "Ki" => Some(1 << 10),
        "Mi" => Some(1 << 20),
        "Gi" => Some(1 << 30),
        "Ti" => Some(1 << 40),
        _ => None,
    };
    let number = number.parse::<u64>().ok();
    let product = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    product.and_then(NonZeroU64::new).ok_or_else(|| {
        "expected bytes such as 20Gi or 500M: a whole number above 0 and perhaps k, M, G, T, Ki, Mi, Gi or Ti".to_owned()
    })
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

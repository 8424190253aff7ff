//! Artifacts: the files a machine fetches, where they come from and where the bridge offers them.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use url::Url;

use super::name::ObjectName;

/// The kinds of file of an environment; spelled as in `InfraEnv.status.bootArtifacts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ArtifactKind {
    /// The Linux kernel, about 13 MB.
    Kernel,
    /// The initial RAM disk with the discovery ignition inside: a secret, and different on every request.
    Initrd,
    /// The root file system, about 1.1 GB.
    Rootfs,
    /// The environment's iPXE script.
    IpxeScript,
}

/// A text that names no kind of artifact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a kind of artifact: expected kernel, initrd, rootfs or ipxeScript")]
pub struct UnknownKind(String);

impl ArtifactKind {
    /// All kinds, in the order in which a machine fetches them.
    pub const ALL: [Self; 4] = [Self::IpxeScript, Self::Kernel, Self::Initrd, Self::Rootfs];

    /// The word used in paths, metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Rootfs => "rootfs",
            Self::IpxeScript => "ipxeScript",
        }
    }

    /// Whether two requests to upstream give the same bytes, so that a broken transfer may go on where it stopped. An initrd is
    /// made anew for every request (assisted-service `internal/cluster/auth.go`: a fresh signature).
    pub fn repeatable(self) -> bool {
        matches!(self, Self::Kernel | Self::Rootfs)
    }

    /// Of kernel and rootfs the other one: they have to be of one build.
    pub fn partner(self) -> Option<Self> {
        match self {
            Self::Kernel => Some(Self::Rootfs),
            Self::Rootfs => Some(Self::Kernel),
            Self::Initrd | Self::IpxeScript => None,
        }
    }
}

impl fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ArtifactKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownKind(text.chars().take(40).collect()))
    }
}

/// An address at the upstream service. Its query and user information hold credentials that never expire, so they are never
/// printed: neither `Debug` nor `Display` shows more than scheme, host and path.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UpstreamUrl(Url);

/// Why a text cannot be an upstream address. The text itself is not repeated: it may hold a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamUrlError {
    /// The text does not parse.
    #[error("not a URL ({0})")]
    Syntax(String),
    /// Neither `http` nor `https`.
    #[error("the scheme {0:?} is not supported, expected http or https")]
    Scheme(String),
    /// No host part.
    #[error("the URL has no host")]
    NoHost,
}

impl UpstreamUrl {
    /// The address for a request. The caller must not print it.
    pub fn secret(&self) -> &Url {
        &self.0
    }

    /// The same address with a query parameter set to a value (and any earlier value of it gone), or without it.
    pub fn with_parameter(&self, name: &str, value: Option<&str>) -> Self {
        // The rest of the query is kept to the letter: upstream's tokens are opaque and a decode and encode might change them.
        let kept = self.0.query().unwrap_or_default();
        let mut parts: Vec<String> = kept
            .split('&')
            .filter(|part| !part.is_empty() && part.split('=').next() != Some(name))
            .map(str::to_owned)
            .collect();
        if let Some(value) = value {
            parts.push(format!("{name}={value}"));
        }
        let mut url = self.0.clone();
        url.set_query((!parts.is_empty()).then(|| parts.join("&")).as_deref());
        Self(url)
    }

    /// The address with nothing of its query but version and architecture, which tell one image from another: for people.
    pub fn label(&self) -> String {
        let mut label = self.to_string();
        for (name, value) in self.0.query_pairs().filter(|pair| matches!(&*pair.0, "version" | "arch")) {
            let is_plain = value
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
            if is_plain && value.len() <= 64 {
                let mark = if label.contains('?') { '&' } else { '?' };
                label.push_str(&format!("{mark}{name}={value}"));
            }
        }
        label
    }

    /// Whether the query has `name=value`.
    pub fn has_parameter(&self, name: &str, value: &str) -> bool {
        self.0.query_pairs().any(|pair| pair.0 == name && pair.1 == value)
    }
}

impl FromStr for UpstreamUrl {
    type Err = UpstreamUrlError;

    fn from_str(text: &str) -> Result<Self, UpstreamUrlError> {
        let url = Url::parse(text).map_err(|error| UpstreamUrlError::Syntax(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(UpstreamUrlError::Scheme(url.scheme().to_owned()));
        }
        if url.host().is_none() {
            return Err(UpstreamUrlError::NoHost);
        }
        Ok(Self(url))
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(&self.0).fmt(f)
    }
}

/// What may be shown of an address: scheme, host and path. Its query and user information may be secrets.
pub fn shown(url: &Url) -> Url {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    // Both fail only for URLs that cannot have user information; those have none to be removed.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown
}

impl fmt::Debug for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The bridge's own address as machines reach it: `http` or `https`, a host, perhaps a port and a path prefix; no query.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicUrl(Box<str>);

/// Why a text cannot be the bridge's own address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be the bridge's address: {why}; expected something like http://boot.example.com:9876")]
pub struct PublicUrlError {
    text: String,
    why: String,
}

impl PublicUrl {
    /// The address of an artifact of an environment, for a boot if it has an id.
    pub fn artifact(&self, kind: ArtifactKind, environment: &ObjectName, boot: Option<&str>) -> String {
        let (namespace, name) = (environment.namespace(), environment.name());
        let address = format!("{self}/boot-artifacts/{kind}/{namespace}/{name}");
        match boot {
            Some(boot) => format!("{address}?b={boot}"),
            None => address,
        }
    }
}

impl FromStr for PublicUrl {
    type Err = PublicUrlError;

    fn from_str(text: &str) -> Result<Self, PublicUrlError> {
        let refuse = |why: &str| PublicUrlError {
            text: text.to_owned(),
            why: why.to_owned(),
        };
        let url = Url::parse(text).map_err(|error| refuse(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse("machines fetch with http or https only"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("it may not hold a user name or password"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refuse("it may not have a query or a fragment"));
        }
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/[]%".contains(&byte))
        {
            return Err(refuse(
                "it goes into scripts: letters, digits and - . _ ~ : / [ ] % are all it may hold",
            ));
        }
        Ok(Self(url.as_str().trim_end_matches('/').into()))
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PublicUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printing_an_upstream_address_hides_what_is_secret() {
        let url: UpstreamUrl = "https://user:pw@images.example.com:8081/p/images/x/pxe-initrd?api_key=TOKEN&arch=x86_64#f"
            .parse()
            .expect("valid");
        for shown in [format!("{url}"), format!("{url:?}")] {
            assert_eq!(shown, "https://images.example.com:8081/p/images/x/pxe-initrd");
        }
        assert_eq!(
            url.label(),
            "https://images.example.com:8081/p/images/x/pxe-initrd?arch=x86_64"
        );
        let error = "TOKEN not a url".parse::<UpstreamUrl>().expect_err("bad");
        assert!(!error.to_string().contains("TOKEN"));
    }

    #[test]
    fn parameters_are_set_and_dropped_and_the_rest_is_kept_to_the_letter() {
        let url: UpstreamUrl = "http://h/f?api_key=a%2Bb.c-d_e&file_name=ipxe-script&ipxe_script_type=boot-order-control"
            .parse()
            .expect("valid");
        assert_eq!(
            url.with_parameter("ipxe_script_type", None).secret().as_str(),
            "http://h/f?api_key=a%2Bb.c-d_e&file_name=ipxe-script"
        );
        assert_eq!(
            url.with_parameter("mac", Some("52:54:00:cc:00:01"))
                .with_parameter("mac", Some("52:54:00:cc:00:02"))
                .secret()
                .query(),
            Some("api_key=a%2Bb.c-d_e&file_name=ipxe-script&ipxe_script_type=boot-order-control&mac=52:54:00:cc:00:02")
        );
        assert!(url.has_parameter("ipxe_script_type", "boot-order-control"));
    }

    #[test]
    fn the_bridge_address_is_checked() {
        let url: PublicUrl = "http://boot.example.com:9876/".parse().expect("valid");
        assert_eq!(url.to_string(), "http://boot.example.com:9876");
        let prefixed: PublicUrl = "https://h/bridge/".parse().expect("valid");
        let lab = ObjectName::new("a", "lab").expect("valid");
        assert_eq!(
            prefixed.artifact(ArtifactKind::Initrd, &lab, None),
            "https://h/bridge/boot-artifacts/initrd/a/lab"
        );
        for bad in [
            "boot.example.com",
            "ftp://h",
            "http://",
            "http://h?x=1",
            "http://u:p@h",
            "http://h/${x}",
            "http://a&&b",
            "http://bo${x}t",
        ] {
            let error = bad.parse::<PublicUrl>().expect_err(bad).to_string();
            assert!(error.contains("http://boot.example.com:9876"), "{error}");
        }
    }
}

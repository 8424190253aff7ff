//! The client for upstream: verified TLS, time and size limits, no redirect to another host, and errors that name nothing secret.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::metrics::{counter::Counter, family::Family};
use prometheus_client::registry::Registry;
use reqwest::{Certificate, Client, Response, StatusCode, header::HeaderMap, redirect};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument as _;
use url::Url;

use crate::boot::artifact::UpstreamUrl;
use crate::boot::script::{MAX_SCRIPT, ScriptError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest pause between two pieces of a body. iPXE 2.0 gives up after 120 s without a byte: this leaves room to try again.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for a place among the transfers; after that a machine is told to ask again.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(60);
/// A script is some hundred bytes.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(15);
/// Of an error's body only the first lines matter.
const MAX_ERROR_BODY: usize = 16 * 1024;
const MAX_REDIRECTS: usize = 3;
/// With this upstream begins the reason of a 404 that means "boot from disk" (assisted-service `infraEnvIPXEScript`).
const SKIPPED: &str = "IPXE booting skipped";

/// The client; its trusted certificates can be exchanged while it works.
#[derive(Debug)]
pub struct Upstream {
    client: ArcSwap<Client>,
    ca_files: Vec<PathBuf>,
    /// Hosts that are asked elsewhere.
    moved: Vec<(String, Url)>,
    /// Places for transfers of artifacts; who waits longest gets the next one. Scripts do not stand in this queue.
    places: Arc<Semaphore>,
    /// The same for scripts.
    script_places: Semaphore,
    requests: Family<[(&'static str, &'static str); 1], Counter>,
}

/// How requests end, in the label `outcome`: an answer; an answer with 4xx; one with 5xx or a redirect that is not followed; none.
const OUTCOMES: [&str; 4] = ["ok", "refused", "failed", "unreachable"];

/// A place among the transfers from upstream, for as long as it is kept.
#[derive(Debug)]
pub struct Admission(#[expect(dead_code, reason = "it is given back when it is dropped")] OwnedSemaphorePermit);

/// What upstream says when asked for a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScriptAnswer {
    /// A script, as it is.
    Script(Vec<u8>),
    /// The machine is to boot its disk; upstream's reason.
    Skipped(String),
    /// Upstream has several hosts with this MAC address; its words.
    Doubled(String),
}

/// Why upstream gave no usable answer. No variant holds an address, a host name or upstream's own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// No connection, or it broke.
    #[error("the upstream service cannot be reached: {0}")]
    Unreachable(String),
    /// An error status.
    #[error("the upstream service answered {0}")]
    Status(u16),
    /// A redirect to another host, or too many.
    #[error("the upstream service redirects to another host, which is not followed")]
    Redirect,
    /// A script that cannot be passed on.
    #[error("the upstream script cannot be used: {0}")]
    Script(#[from] ScriptError),
    /// As many transfers as there may be, all the time.
    #[error(
        "there are as many transfers from the upstream service as there may be (--upstream-connections), and none ended in time"
    )]
    Busy,
    /// A range or a length that contradicts what was asked for.
    #[error("the upstream service contradicts itself: {0}")]
    Contradiction(&'static str),
}

impl Upstream {
    /// A client that trusts the system's certificates and those of the files, asks some hosts at another address, and has so many
    /// transfers of artifacts at once.
    pub fn new(ca_files: Vec<PathBuf>, moved: Vec<(String, Url)>, transfers: usize) -> anyhow::Result<Self> {
        let client = client(&ca_files)?;
        let transfers = transfers.clamp(1, Semaphore::MAX_PERMITS);
        Ok(Self {
            client: ArcSwap::from_pointee(client),
            ca_files,
            moved,
            places: Arc::new(Semaphore::new(transfers)),
            script_places: Semaphore::new(transfers),
            requests: Family::default(),
        })
    }

    /// Names what is counted here.
    pub fn register(&self, registry: &mut Registry) {
        // There before the first one, so that an alert has something to compare with.
        for outcome in OUTCOMES {
            self.count(outcome, 0);
        }
        registry.register(
            "upstream_requests",
            "Requests to the Assisted Service by outcome",
            self.requests.clone(),
        );
    }

    fn count(&self, outcome: &'static str, number: u64) {
        self.requests.get_or_create(&[("outcome", outcome)]).inc_by(number);
    }

    /// Waits for a place among the transfers.
    ///
    /// # Errors
    ///
    /// `Busy` if there was none in time.
    pub async fn admit(&self) -> Result<Admission, UpstreamError> {
        match tokio::time::timeout(QUEUE_TIMEOUT, self.places.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Admission(permit)),
            _ => Err(UpstreamError::Busy),
        }
    }

    /// Reads the certificates again; on an error the earlier ones stay.
    pub fn reload(&self) -> anyhow::Result<()> {
        self.client.store(client(&self.ca_files)?.into());
        Ok(())
    }

    /// Fetches a script.
    pub async fn script(&self, url: &UpstreamUrl) -> Result<ScriptAnswer, UpstreamError> {
        let fetch = async {
            // Never closed.
            let _place = self.script_places.acquire().await;
            let response = self.send(reqwest::Method::GET, url, HeaderMap::new()).await?;
            let status = response.status();
            match status {
                StatusCode::OK => Ok(ScriptAnswer::Script(body(response, MAX_SCRIPT).await?)),
                StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR => {
                    let reason = reason(&body(response, MAX_ERROR_BODY).await.unwrap_or_default());
                    match reason {
                        Some(reason) if status == StatusCode::NOT_FOUND => Ok(ScriptAnswer::Skipped(reason)),
                        Some(reason) if reason.starts_with("Unexpected number of hosts") => Ok(ScriptAnswer::Doubled(reason)),
                        _ => Err(UpstreamError::Status(status.as_u16())),
                    }
                }
                status => Err(UpstreamError::Status(status.as_u16())),
            }
        };
        tokio::time::timeout(SCRIPT_TIMEOUT, fetch).await.unwrap_or_else(|_| {
            self.count("unreachable", 1);
            Err(UpstreamError::Unreachable("no answer in time".to_owned()))
        })
    }

    /// Sends a request and follows redirects within the same host. Any other status than a redirect is an answer.
    pub async fn send(&self, method: reqwest::Method, url: &UpstreamUrl, headers: HeaderMap) -> Result<Response, UpstreamError> {
        let request = self
            .client
            .load()
            .request(method.clone(), self.place(url.secret().clone()))
            .headers(headers);
        let span = tracing::info_span!(
            "upstream",
            otel.name = %method,
            otel.kind = "client",
            otel.status_code = tracing::field::Empty,
            http.request.method = %method,
            url.full = url.label(),
            http.response.status_code = tracing::field::Empty,
        );
        let sent = request.send().instrument(span.clone()).await;
        let outcome = match sent.as_ref().map(|response| response.status().as_u16()) {
            Ok(200..300 | 304) => "ok",
            Ok(400..500) => "refused",
            Ok(_) => "failed",
            Err(_) => "unreachable",
        };
        self.count(outcome, 1);
        match &sent {
            Ok(response) => {
                span.record("http.response.status_code", response.status().as_u16());
            }
            Err(_) => {
                span.record("otel.status_code", "ERROR");
            }
        }
        let response = sent.map_err(|error| UpstreamError::Unreachable(describe(&error)))?;
        match response.status().is_redirection() && response.status() != StatusCode::NOT_MODIFIED {
            true => Err(UpstreamError::Redirect),
            false => Ok(response),
        }
    }
}

impl Upstream {
    /// Where an address is asked. Path and query stay; the certificate is checked for the name that is asked.
    fn place(&self, mut url: Url) -> Url {
        let moved = self.moved.iter().find(|(host, _)| url.host_str() == Some(host));
        if let Some((_, to)) = moved {
            // These fail for addresses without a host only, and both have one.
            let _ = url.set_scheme(to.scheme());
            let _ = url.set_host(to.host_str());
            let _ = url.set_port(to.port());
        }
        url
    }
}

fn client(ca_files: &[PathBuf]) -> anyhow::Result<Client> {
    let mut certificates = Vec::new();
    for file in ca_files {
        let refuse = |why: String| anyhow::anyhow!("--upstream-ca: {}: {why}", file.display());
        let found = CertificateDer::pem_file_iter(file).map_err(|error| refuse(error.to_string()))?;
        let before = certificates.len();
        for certificate in found {
            let certificate = certificate.map_err(|error| refuse(error.to_string()))?;
            certificates.push(Certificate::from_der(&certificate).map_err(|error| refuse(error.to_string()))?);
        }
        if certificates.len() == before {
            return Err(refuse("it holds no certificate".to_owned()));
        }
    }
    Ok(Client::builder()
        .user_agent(concat!("ipxe-bridge/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .redirect(redirect::Policy::custom(same_host_only))
        .tls_certs_merge(certificates)
        .build()?)
}

/// Follows a redirect only to the same host and port, or from http to https of the same host.
fn same_host_only(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let same = attempt.previous().last().is_some_and(|from| {
        let to = attempt.url();
        let upgraded = from.scheme() == "http" && to.scheme() == "https" && from.host_str() == to.host_str();
        upgraded
            || (from.scheme(), from.host_str(), from.port_or_known_default())
                == (to.scheme(), to.host_str(), to.port_or_known_default())
    });
    match same && attempt.previous().len() <= MAX_REDIRECTS {
        true => attempt.follow(),
        false => attempt.stop(),
    }
}

/// A whole body of at most `limit` bytes.
async fn body(mut response: Response, limit: usize) -> Result<Vec<u8>, UpstreamError> {
    let mut body = Vec::new();
    while let Some(piece) = response
        .chunk()
        .await
        .map_err(|error| UpstreamError::Unreachable(describe(&error)))?
    {
        body.extend_from_slice(&piece);
        if body.len() > limit {
            return Err(ScriptError::TooLong.into());
        }
    }
    Ok(body)
}

/// Upstream's reason why a machine gets no script, if the body of its error is such a reason. Other error bodies may hold internal
/// addresses with tokens and are not looked at further.
fn reason(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Body {
        reason: String,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    let reason = body.reason.strip_prefix(SKIPPED)?.trim_start_matches(['.', ' ']);
    let is_harmless = !reason.contains("://") && !reason.contains("api_key");
    Some(if is_harmless {
        reason.chars().take(300).collect()
    } else {
        "it says so".to_owned()
    })
}

/// What went wrong, without the address it went wrong with. Unknown causes are named by their class only: the words of a library may
/// hold a host name.
pub(super) fn describe(error: &reqwest::Error) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(known) = describe_cause(current) {
            return known;
        }
        // The source of an I/O error is the source of what it wraps, so what it wraps is looked at by itself.
        let wrapped = current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => current.source(),
        };
    }
    match error {
        error if error.is_timeout() => "no answer in time".to_owned(),
        error if error.is_connect() => "no connection (is its name known to DNS?)".to_owned(),
        error if error.is_body() || error.is_decode() => "the transfer broke off".to_owned(),
        _ => "the request failed".to_owned(),
    }
}

/// The words for a cause whose words are fixed; others may carry a text from elsewhere.
fn describe_cause(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        return Some(describe_tls(tls));
    }
    match cause.downcast_ref::<std::io::Error>()?.kind() {
        kind @ (ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::TimedOut
        | ErrorKind::UnexpectedEof) => Some(kind.to_string()),
        _ => None,
    }
}

fn describe_tls(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
            "its certificate is signed by nobody this bridge trusts (--upstream-ca names further certificates)".to_owned()
        }
        rustls::Error::InvalidCertificate(rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. }) => {
            "its certificate has expired".to_owned()
        }
        rustls::Error::InvalidCertificate(
            rustls::CertificateError::NotValidForName | rustls::CertificateError::NotValidForNameContext { .. },
        ) => "its certificate is for another name".to_owned(),
        rustls::Error::InvalidCertificate(_) => "its certificate is not valid".to_owned(),
        _ => "TLS could not be agreed on".to_owned(),
    }
}

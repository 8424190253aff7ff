//! The one place where an error becomes an answer: a status, one sentence for people, a type for programs (RFC 9457).

use http::StatusCode;
use poem::{IntoResponse, Response};
use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Object};

use crate::server::trouble::{MAX_TARGET, NotCounted, Trouble};
use crate::server::upstream::UpstreamError;

/// Seconds after which iPXE asks again by itself (`Retry-After`, honoured since 1.21.1 and before).
pub const RETRY_AFTER: u32 = 5;

/// Problem details of RFC 9457.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none, example)]
pub struct Problem {
    /// What kind of problem it is; stable.
    #[oai(rename = "type")]
    pub type_: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong in this case, and what would be right.
    pub detail: String,
    /// The full names to choose from where a short one is ambiguous.
    pub candidates: Option<Vec<String>>,
}

impl Example for Problem {
    fn example() -> Self {
        Trouble::NotYet("InfraEnv lab/discovery does not exist".to_owned()).problem()
    }
}

impl Trouble {
    /// Status, type and title.
    fn class(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadMac(_) => (StatusCode::BAD_REQUEST, "bad-mac-address", "Not a MAC address"),
            Self::UnknownKind(_) => (StatusCode::NOT_FOUND, "unknown-artifact-kind", "Unknown kind of artifact"),
            Self::UnknownEnvironment(_) => (StatusCode::NOT_FOUND, "unknown-environment", "Unknown environment"),
            Self::Ambiguous(..) => (StatusCode::CONFLICT, "ambiguous-environment", "Ambiguous environment"),
            Self::NoArtifact(_) => (StatusCode::SERVICE_UNAVAILABLE, "artifact-not-made", "Artifact not made yet"),
            Self::NotReady(_) => (StatusCode::SERVICE_UNAVAILABLE, "not-ready", "The bridge is not ready"),
            Self::NotCounted(..) => (StatusCode::SERVICE_UNAVAILABLE, "boot-not-counted", "Boot not counted"),
            Self::NotYet(_) => (StatusCode::SERVICE_UNAVAILABLE, "not-yet", "Nothing to boot yet"),
            Self::NothingToBoot(_) => (StatusCode::NOT_FOUND, "nothing-to-boot", "Nothing to boot from the network"),
            Self::ScriptProxyOff => (StatusCode::FORBIDDEN, "script-proxy-off", "Upstream scripts are not served"),
            Self::Upstream(UpstreamError::Unreachable(_) | UpstreamError::Status(_)) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream-unavailable",
                "Upstream is not available",
            ),
            Self::Upstream(UpstreamError::Busy) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream-busy",
                "Too many transfers from upstream",
            ),
            Self::Upstream(UpstreamError::Redirect) => {
                (StatusCode::BAD_GATEWAY, "upstream-redirect", "Upstream redirects elsewhere")
            }
            Self::Upstream(UpstreamError::Script(_)) => {
                (StatusCode::BAD_GATEWAY, "upstream-script", "Upstream's script cannot be used")
            }
            Self::Upstream(UpstreamError::Contradiction(_)) => (
                StatusCode::BAD_GATEWAY,
                "upstream-contradiction",
                "Upstream contradicts itself",
            ),
            Self::Range(_) => (StatusCode::RANGE_NOT_SATISFIABLE, "range", "Range not satisfiable"),
            Self::BadHost => (StatusCode::BAD_REQUEST, "bad-host", "Bad Host header"),
            Self::TooManyWatchers => (StatusCode::SERVICE_UNAVAILABLE, "too-many-watchers", "Too many watch"),
            Self::TargetTooLong(_) => (StatusCode::URI_TOO_LONG, "target-too-long", "Path or query too long"),
            Self::Framework(StatusCode::NOT_FOUND, _) => (StatusCode::NOT_FOUND, "no-such-route", "No such page"),
            Self::Framework(StatusCode::METHOD_NOT_ALLOWED, _) => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed")
            }
            Self::Framework(status, _) if status.is_client_error() => (*status, "bad-request", "Bad request"),
            Self::Framework(..) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::BadMac(error) => error.to_string(),
            Self::UnknownKind(error) => error.to_string(),
            Self::UnknownEnvironment(name) => format!("there is no InfraEnv {name}: /inventory lists those that the bridge knows"),
            Self::Ambiguous(name, candidates) => {
                format!(
                    "several InfraEnvs are called {name}: put the namespace before it, as in {}",
                    candidates.join(" or ")
                )
            }
            Self::NoArtifact(what) => format!("{what}: the Assisted Service makes it when the InfraEnv is available"),
            Self::NotReady(missing) => format!("not everything was read yet: {}", missing.join("; ")),
            Self::NotCounted(name, NotCounted::UsedUp) => {
                format!(
                    "IpxeHostOverride {name} was booted as often as its bootLimit says just now; the machine is told to ask again"
                )
            }
            Self::NotCounted(name, NotCounted::Unwritable(why)) => {
                format!(
                    "IpxeHostOverride {name} has a bootLimit and this boot cannot be counted: {why}; the machine is told to ask again"
                )
            }
            Self::NotYet(awaited) => format!("{awaited}; the machine is told to ask again"),
            Self::NothingToBoot(why) => format!("{why}; the machine goes on to its next boot device"),
            Self::TooManyWatchers => "as many watch /boots/stream as may; GET /boots is always answered".to_owned(),
            Self::ScriptProxyOff => {
                "upstream's unchanged script holds a token of the environment that never expires: start the server with \
                                     --script-proxy to serve it, or use /ipxe-mac-boot"
                    .to_owned()
            }
            Self::Upstream(error) => error.to_string(),
            Self::Range(Some(total)) => format!("the range begins behind the end of the artifact, which has {total} bytes"),
            Self::Range(None) => "the range begins behind the end of the artifact".to_owned(),
            Self::BadHost => {
                "the Host header is not a host name with an optional port: start the server with --uri to do without it".to_owned()
            }
            Self::TargetTooLong(length) => format!("path and query have {length} bytes, expected at most {MAX_TARGET}"),
            Self::Framework(StatusCode::NOT_FOUND, _) => {
                "there is nothing at this path: / and /openapi.json list what there is".to_owned()
            }
            Self::Framework(StatusCode::METHOD_NOT_ALLOWED, _) => "only GET and HEAD are answered here".to_owned(),
            Self::Framework(status, message) if status.is_client_error() => message.clone(),
            Self::Framework(..) => "something failed inside the bridge: its log says what".to_owned(),
        }
    }

    /// The body of the answer.
    pub fn problem(&self) -> Problem {
        let (status, slug, title) = self.class();
        Problem {
            type_: format!("urn:ipxe-bridge:problem:{slug}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail(),
            candidates: match self {
                Self::Ambiguous(_, candidates) => Some(candidates.clone()),
                _ => None,
            },
        }
    }
}

/// A failed request, as the API documents it.
#[derive(Debug, ApiResponse)]
pub enum Failure {
    /// The request cannot be understood
    #[oai(status = 400, content_type = "application/problem+json")]
    BadRequest(Json<Problem>),
    /// The bridge is not set up to answer this
    #[oai(status = 403, content_type = "application/problem+json")]
    Forbidden(Json<Problem>),
    /// There is no such thing, or nothing to boot
    #[oai(status = 404, content_type = "application/problem+json")]
    NotFound(Json<Problem>),
    /// The name is ambiguous
    #[oai(status = 409, content_type = "application/problem+json")]
    Conflict(Json<Problem>),
    /// Path and query are too long
    #[oai(status = 414, content_type = "application/problem+json")]
    TooLong(Json<Problem>),
    /// The range begins behind the end
    #[oai(status = 416, content_type = "application/problem+json")]
    Range(
        Json<Problem>,
        /// The whole length, as in `bytes */1048576`
        #[oai(header = "Content-Range")]
        Option<String>,
    ),
    /// Upstream's answer cannot be used; iPXE asks again by itself
    #[oai(status = 502, content_type = "application/problem+json")]
    BadGateway(
        Json<Problem>,
        /// Seconds until it is worth asking again
        #[oai(header = "Retry-After")]
        u32,
    ),
    /// Not now; iPXE asks again by itself
    #[oai(status = 503, content_type = "application/problem+json")]
    Unavailable(
        Json<Problem>,
        /// Seconds until it is worth asking again
        #[oai(header = "Retry-After")]
        u32,
    ),
    /// Something failed inside the bridge
    #[oai(status = 500, content_type = "application/problem+json")]
    Internal(Json<Problem>),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        let body = Json(trouble.problem());
        match trouble.class().0 {
            StatusCode::BAD_REQUEST => Self::BadRequest(body),
            StatusCode::FORBIDDEN => Self::Forbidden(body),
            StatusCode::NOT_FOUND => Self::NotFound(body),
            StatusCode::CONFLICT => Self::Conflict(body),
            StatusCode::URI_TOO_LONG => Self::TooLong(body),
            StatusCode::RANGE_NOT_SATISFIABLE => match trouble {
                Trouble::Range(Some(total)) => Self::Range(body, Some(format!("bytes */{total}"))),
                _ => Self::Range(body, None),
            },
            StatusCode::BAD_GATEWAY => Self::BadGateway(body, RETRY_AFTER),
            StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable(body, RETRY_AFTER),
            _ => Self::Internal(body),
        }
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let status = self.class().0;
        let mut response = Failure::from(self).into_response();
        response.set_status(status);
        response
    }
}

/// An error of the framework (no such path, wrong method, a parameter that does not parse) as a problem.
pub async fn of_framework(error: poem::Error) -> Response {
    match error.is_from_response() {
        true => error.into_response(),
        false => Trouble::Framework(error.status(), error.to_string()).into_response(),
    }
}

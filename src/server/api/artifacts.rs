//! Kernel, initrd, rootfs and script of an environment.

mod sending;

use std::sync::Arc;

use http::header;
use jiff::Timestamp;
use poem::{Body, Request};
use poem_openapi::param::{Header, Path};
use poem_openapi::payload::Binary;
use poem_openapi::{ApiResponse, OpenApi};

use crate::boot::artifact::ArtifactKind;
use crate::boot::environment::Environment;
use crate::boot::inventory::{Inventory, LookupError};
use crate::boot::name::ObjectName;
use crate::server::boot_id::BootId;
use crate::server::context::Context;
use crate::server::metrics::{CacheResult, Outcome};
use crate::server::middleware;
use crate::server::sendfile::Parts;
use crate::server::timeline::{Part, Step};
use crate::server::transfer::{self, Answer, Content, Wanted};
use crate::server::trouble::Trouble;
use crate::server::upstream::UpstreamError;
use crate::server::validator::{ByteRange, Validator};

use super::problem::Failure;
use super::{Tag, example};
use sending::{Sending, TransferLog};

/// Says that a cached build may not be current.
const STALE: &str = "111 ipxe-bridge \"Revalidation Failed\"";

/// Artifacts.
pub struct ArtifactsApi {
    context: Arc<Context>,
}

/// An artifact, a part of it, or word that it did not change.
#[derive(ApiResponse)]
enum ArtifactResponse {
    /// The artifact
    #[oai(status = 200)]
    Whole(
        Binary<Body>,
        /// Type that upstream gives it
        #[oai(header = "Content-Type")]
        String,
        /// Length in bytes, where upstream says it
        #[oai(header = "Content-Length")]
        Option<u64>,
        /// `bytes` where ranges are answered: kernel and rootfs
        #[oai(header = "Accept-Ranges")]
        String,
        /// Tells one build from another
        #[oai(header = "ETag")]
        Option<String>,
        /// Upstream's date of the build
        #[oai(header = "Last-Modified")]
        Option<String>,
        /// What the artifact cache had to do with it (RFC 9211), where there is one
        #[oai(header = "Cache-Status")]
        Option<String>,
        /// `111` where upstream could not be asked whether the cached build is current (RFC 7234)
        #[oai(header = "Warning")]
        Option<String>,
    ),
    /// The part that was asked for
    #[oai(status = 206)]
    Part(
        Binary<Body>,
        /// Type that upstream gives it
        #[oai(header = "Content-Type")]
        String,
        /// Length of the part in bytes
        #[oai(header = "Content-Length")]
        Option<u64>,
        /// Which part of how many bytes
        #[oai(header = "Content-Range")]
        String,
        /// Tells one build from another
        #[oai(header = "ETag")]
        Option<String>,
        /// Upstream's date of the build
        #[oai(header = "Last-Modified")]
        Option<String>,
        /// What the artifact cache had to do with it (RFC 9211), where there is one
        #[oai(header = "Cache-Status")]
        Option<String>,
        /// `111` where upstream could not be asked whether the cached build is current (RFC 7234)
        #[oai(header = "Warning")]
        Option<String>,
    ),
    /// Still the build that the client has
    #[oai(status = 304)]
    NotModified(
        /// Tells one build from another
        #[oai(header = "ETag")]
        Option<String>,
        /// Upstream's date of the build
        #[oai(header = "Last-Modified")]
        Option<String>,
    ),
}

/// The conditional headers of a request.
struct Conditions {
    range: Option<String>,
    if_range: Option<String>,
    if_none_match: Option<String>,
    if_modified_since: Option<String>,
}

impl Conditions {
    fn wanted(self, head: bool) -> Wanted {
        let range = self.range.as_deref().and_then(ByteRange::parse);
        let if_range = self.if_range.as_deref().map(Validator::of_client);
        Wanted {
            head,
            // A build that this bridge cannot have sent is not the present one: all of it.
            range: range.filter(|_| !matches!(if_range, Some(None))),
            if_range: if_range.flatten(),
            if_none_match: self.if_none_match.as_deref().and_then(Validator::of_client),
            // RFC 9110, 13.1.3: it does not count beside If-None-Match.
            if_modified_since: self
                .if_modified_since
                .filter(|_| self.if_none_match.is_none())
                .and_then(|since| since.parse().ok()),
        }
    }
}

impl ArtifactsApi {
    /// The group.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    async fn serve(
        &self,
        request: &Request,
        kind: &str,
        namespace: Option<&str>,
        name: &str,
        wanted: Wanted,
    ) -> Result<ArtifactResponse, Failure> {
        let kind: ArtifactKind = kind.parse().map_err(Trouble::UnknownKind)?;
        let published = self.context.inventory()?;
        let environment = environment(&published.inventory, namespace, name)?.clone();
        let Some(url) = environment.artifacts.get(kind) else {
            return Err(Trouble::NoArtifact(format!("InfraEnv {} has no {kind} yet", environment.name)).into());
        };
        if kind == ArtifactKind::IpxeScript {
            let bridge = self.context.public_url(request)?;
            let script = self.context.environment_script(&environment, &bridge).await?;
            let length = Some(script.len() as u64);
            let body = if wanted.head { Body::empty() } else { Body::from(script) };
            let content_type = "text/plain; charset=utf-8".to_owned();
            return Ok(ArtifactResponse::Whole(
                Binary(body),
                content_type,
                length,
                "none".to_owned(),
                None,
                None,
                None,
                None,
            ));
        }
        let cache = self.context.cache.as_ref().filter(|_| kind.repeatable());
        let opened = match cache {
            Some(cache) => cache
                .get(kind, url, &environment.artifacts, &wanted)
                .await
                .map(|(answer, result)| (answer, Some(result))),
            None => transfer::open(&self.context.upstream, kind, url, &wanted)
                .await
                .map(|answer| (answer, None)),
        };
        let (answer, result) = opened.map_err(|error| {
            self.refuse(request, (kind, &environment), &error);
            Trouble::Upstream(error)
        })?;
        if let Some(result) = result {
            self.context.metrics.cache_answer(kind, result);
        }
        match answer {
            Answer::NotModified(validator) => {
                let (tag, date) = validators(validator.as_ref());
                Ok(ArtifactResponse::NotModified(tag, date))
            }
            Answer::RangeNotSatisfiable(total) => Err(Trouble::Range(total).into()),
            Answer::Content(content) if content.length.is_none() && request.version() == http::Version::HTTP_10 => {
                // To such a client a broken body of unknown length would look complete.
                Err(Trouble::Upstream(UpstreamError::Contradiction("a length is missing, and HTTP/1.0 needs one")).into())
            }
            Answer::Content(mut content) => {
                content.body.belongs_to(request.data::<BootId>());
                let log = TransferLog::begin(&self.context, request, (kind, environment), &content, (wanted.head, result));
                let sending = Sending {
                    parts: request.data::<Parts>().cloned(),
                    pacing: &self.context.pacing,
                    result,
                };
                Ok(respond(*content, sending, log))
            }
        }
    }
}

impl ArtifactsApi {
    /// Tells of a file that upstream would not give.
    fn refuse(&self, request: &Request, (kind, environment): (ArtifactKind, &Environment), error: &UpstreamError) {
        let (boot, client) = (request.data::<BootId>(), middleware::client(request));
        let (mac, trace_id) = (boot.map(|id| id.mac.to_string()), boot.map(BootId::trace_text));
        tracing::warn!(artifact = %kind, environment = %environment.name, mac, client, trace_id, %error, "artifact not served");
        self.context.metrics.transfer(kind, Outcome::Refused, None, 0);
        if let Some(id) = boot {
            let now = Timestamp::now();
            let step = Step::new(kind, client, Part::default(), None, now);
            self.context.timeline.refused(id, step, now);
        }
    }
}

/// What the cache had to do with an answer (RFC 9211).
fn cache_status(result: CacheResult) -> String {
    let what = match result {
        CacheResult::Hit => "hit",
        CacheResult::Fill => "fwd=miss; collapsed; stored",
        CacheResult::Stale => "hit; detail=upstream-away",
        CacheResult::Pass => "fwd=bypass",
    };
    format!("ipxe-bridge; {what}")
}

fn respond(content: Content, sending: Sending<'_>, log: TransferLog) -> ArtifactResponse {
    let kind = log.kind;
    let (tag, date) = validators(content.validator.as_ref());
    let content_type = content.content_type.as_ref().and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or("application/octet-stream").to_owned();
    let status = sending.result.map(cache_status);
    let warning = (sending.result == Some(CacheResult::Stale)).then(|| STALE.to_owned());
    let body = match log.head {
        true => Body::empty(),
        false => sending.body(content.body, log),
    };
    match content.part {
        Some(part) => ArtifactResponse::Part(
            Binary(body),
            content_type,
            content.length,
            part.text(),
            tag,
            date,
            status,
            warning,
        ),
        None => {
            let ranges = if kind.repeatable() { "bytes" } else { "none" };
            let ranges = ranges.to_owned();
            ArtifactResponse::Whole(Binary(body), content_type, content.length, ranges, tag, date, status, warning)
        }
    }
}

fn validators(validator: Option<&Validator>) -> (Option<String>, Option<String>) {
    (
        validator.and_then(Validator::entity_tag),
        validator.and_then(Validator::last_modified),
    )
}

fn environment<'a>(inventory: &'a Inventory, namespace: Option<&str>, name: &str) -> Result<&'a Arc<Environment>, Trouble> {
    let shown = |text: &str| text.chars().take(80).collect::<String>();
    let Some(namespace) = namespace else {
        return inventory.environment_named(name).map_err(|error| match error {
            LookupError::Unknown => Trouble::UnknownEnvironment(shown(name)),
            LookupError::Ambiguous(names) => Trouble::Ambiguous(shown(name), names.iter().map(ObjectName::to_string).collect()),
        });
    };
    let unknown = || Trouble::UnknownEnvironment(format!("{}/{}", shown(namespace), shown(name)));
    let name = ObjectName::new(namespace, name).map_err(|_| unknown())?;
    inventory.environment(&name).ok_or_else(unknown)
}

#[OpenApi(tag = "Tag::Artifacts")]
impl ArtifactsApi {
    /// An artifact of an environment
    ///
    /// Streamed from upstream, or from the artifact cache where there is one. A broken transfer of kernel or rootfs is taken up again
    /// without the client noticing; an initrd is made anew by upstream for every request, so it is always sent whole and never kept.
    #[oai(
        path = "/boot-artifacts/:kind/:namespace/:name",
        method = "get",
        operation_id = "getArtifact"
    )]
    #[expect(
        clippy::too_many_arguments,
        reason = "one parameter per path segment and header of the operation"
    )]
    async fn get(
        &self,
        request: &Request,
        /// `kernel`, `initrd`, `rootfs` or `ipxeScript`
        #[oai(example = "example::kind")]
        kind: Path<String>,
        /// Namespace of the InfraEnv
        #[oai(example = "example::namespace")]
        namespace: Path<String>,
        /// Name of the InfraEnv
        #[oai(example = "example::environment")]
        name: Path<String>,
        /// One range of bytes, such as `bytes=0-1023`; several are answered with the whole
        #[oai(name = "Range")]
        range: Header<Option<String>>,
        /// Entity tag or date of the build to which the range belongs
        #[oai(name = "If-Range")]
        if_range: Header<Option<String>>,
        /// Entity tag of the build that the client has
        #[oai(name = "If-None-Match")]
        if_none_match: Header<Option<String>>,
        /// Date of the build that the client has
        #[oai(name = "If-Modified-Since")]
        if_modified_since: Header<Option<String>>,
    ) -> Result<ArtifactResponse, Failure> {
        let conditions = Conditions {
            range: range.0,
            if_range: if_range.0,
            if_none_match: if_none_match.0,
            if_modified_since: if_modified_since.0,
        };
        self.serve(request, &kind, Some(&namespace), &name, conditions.wanted(false))
            .await
    }

    /// The headers of an artifact
    #[oai(
        path = "/boot-artifacts/:kind/:namespace/:name",
        method = "head",
        operation_id = "headArtifact"
    )]
    async fn head(
        &self,
        request: &Request,
        /// `kernel`, `initrd`, `rootfs` or `ipxeScript`
        #[oai(example = "example::kind")]
        kind: Path<String>,
        /// Namespace of the InfraEnv
        #[oai(example = "example::namespace")]
        namespace: Path<String>,
        /// Name of the InfraEnv
        #[oai(example = "example::environment")]
        name: Path<String>,
    ) -> Result<ArtifactResponse, Failure> {
        let wanted = conditions_of(request).wanted(true);
        self.serve(request, &kind, Some(&namespace), &name, wanted).await
    }

    /// An artifact of an environment whose name is used in one namespace only
    ///
    /// 409 with the candidates if several namespaces use the name. Takes the same headers as the long form.
    #[oai(path = "/boot-artifacts/:kind/:name", method = "get", operation_id = "getArtifactByName")]
    async fn get_by_name(
        &self,
        request: &Request,
        /// `kernel`, `initrd`, `rootfs` or `ipxeScript`
        #[oai(example = "example::kind")]
        kind: Path<String>,
        /// Name of the InfraEnv
        #[oai(example = "example::environment")]
        name: Path<String>,
    ) -> Result<ArtifactResponse, Failure> {
        let wanted = conditions_of(request).wanted(false);
        self.serve(request, &kind, None, &name, wanted).await
    }

    /// The headers of an artifact of an environment whose name is used in one namespace only
    #[oai(path = "/boot-artifacts/:kind/:name", method = "head", operation_id = "headArtifactByName")]
    async fn head_by_name(
        &self,
        request: &Request,
        /// `kernel`, `initrd`, `rootfs` or `ipxeScript`
        #[oai(example = "example::kind")]
        kind: Path<String>,
        /// Name of the InfraEnv
        #[oai(example = "example::environment")]
        name: Path<String>,
    ) -> Result<ArtifactResponse, Failure> {
        let wanted = conditions_of(request).wanted(true);
        self.serve(request, &kind, None, &name, wanted).await
    }
}

fn conditions_of(request: &Request) -> Conditions {
    let text = |name| request.header(name).map(str::to_owned);
    Conditions {
        range: text(header::RANGE),
        if_range: text(header::IF_RANGE),
        if_none_match: text(header::IF_NONE_MATCH),
        if_modified_since: text(header::IF_MODIFIED_SINCE),
    }
}

//! From a request to the service that answers it, with the faults that are switched on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;

use super::Shared;
use super::artifact::ArtifactRequest;
use super::fault::{Fault, Flow, Target};
use super::reply::{Body, Reply, endless};
use super::request_log::Entry;
use super::script::ScriptRequest;

/// A decoded query.
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses what stands behind the question mark.
    pub fn parse(text: &str) -> Self {
        let pairs = url::form_urlencoded::parse(text.as_bytes());
        Self(pairs.into_owned().collect())
    }

    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.0.iter();
        let (_, value) = pairs.find(|(key, _)| key == name)?;
        Some(value)
    }
}

/// What a path asks for.
#[derive(Debug, Clone, Copy)]
enum Route<'a> {
    Script(&'a str),
    BootArtifact(&'a str),
    Initrd(&'a str),
    Health,
    Live,
    Nothing,
}

impl<'a> Route<'a> {
    /// With a path prefix, nothing is found without it: as behind an Ingress.
    fn of(path: &'a str, prefix: &str) -> Self {
        let path = path.strip_prefix(prefix).unwrap_or_default();
        let between = |start: &str, end: &str| {
            let id = path.strip_prefix(start)?.strip_suffix(end)?;
            (!id.contains('/')).then_some(id)
        };
        if let Some(id) = between("/api/assisted-install/v2/infra-envs/", "/downloads/files") {
            Self::Script(id)
        } else if let Some(name) = path.strip_prefix("/boot-artifacts/") {
            Self::BootArtifact(name)
        } else if let Some(id) = between("/images/", "/pxe-initrd") {
            Self::Initrd(id)
        } else if path == "/health" {
            Self::Health
        } else if path == "/live" {
            Self::Live
        } else {
            Self::Nothing
        }
    }

    fn target(self) -> Option<Target> {
        match self {
            Self::Script(_) => Some(Target::Script),
            Self::BootArtifact("kernel") => Some(Target::Kernel),
            Self::BootArtifact("rootfs") => Some(Target::Rootfs),
            Self::Initrd(_) => Some(Target::Initrd),
            Self::BootArtifact(_) | Self::Health | Self::Live | Self::Nothing => None,
        }
    }
}

/// Answers one request.
pub async fn respond(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    let route = Route::of(path, &shared.base.prefix);
    let target = route.target();
    let text = request.uri().path_and_query().map_or(path, |both| both.as_str());
    let log = Arc::new(Entry::new(
        request.method().clone(),
        text.to_owned(),
        target,
        request.headers().clone(),
    ));
    shared.state().requests.push(log.clone());

    let query = Query::parse(request.uri().query().unwrap_or_default());
    let fault = target.and_then(|target| shared.state().faults.take_answer(target));
    let reply = match fault {
        Some(Fault::Status(code)) => broken(route, code, &request, &query),
        Some(Fault::Redirect(to)) => Reply::empty(StatusCode::FOUND).with(header::LOCATION, &to),
        Some(Fault::Body(bytes)) => Reply::bytes(StatusCode::OK, "application/octet-stream", bytes),
        Some(Fault::Endless) => {
            log.answered(200);
            return Response::new(endless(log));
        }
        Some(Fault::Delay(time)) => {
            tokio::time::sleep(time).await;
            shared.reply(route, &request, &query)
        }
        _ => shared.reply(route, &request, &query),
    };

    let flow = match (target, reply.sends(request.method())) {
        (Some(target), Some(range)) => shared.state().faults.take_flow(target, range),
        _ => Flow::default(),
    };
    log.answered(reply.status().as_u16());
    let builder = shared.clone();
    reply.response(request.method(), flow, shared.link.clone(), log, move || builder.new_build())
}

/// The answer of a service that fails with this status.
fn broken(route: Route<'_>, code: u16, request: &Request<Incoming>, query: &Query) -> Reply {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match route {
        Route::Initrd(id) if code >= 400 && code != 503 => ArtifactRequest {
            method: request.method(),
            query,
            headers: request.headers(),
        }
        .ignition_error(id, status),
        _ => Reply::empty(status),
    }
}

impl Shared {
    /// The answer of a service in order.
    fn reply(&self, route: Route<'_>, request: &Request<Incoming>, query: &Query) -> Reply {
        let state = self.state();
        let artifact = ArtifactRequest {
            method: request.method(),
            query,
            headers: request.headers(),
        };
        match route {
            // The plain listener knows the script and no other file.
            Route::Script(id) if query.get("file_name") == Some("ipxe-script") => ScriptRequest {
                method: request.method(),
                query,
                headers: request.headers(),
            }
            .answer(
                state.directory.check_token(id, query.get("api_key")),
                state.directory.get(id),
                &self.base,
            ),
            Route::Script(_) | Route::Nothing => Reply::text(StatusCode::NOT_FOUND, "404 page not found"),
            Route::BootArtifact(_) | Route::Initrd(_) | Route::Health if !state.ready => {
                Reply::empty(StatusCode::SERVICE_UNAVAILABLE)
            }
            Route::Health | Route::Live => Reply::empty(StatusCode::OK),
            Route::BootArtifact(name) => {
                artifact.boot_artifact(name, &state.directory, |version, arch| {
                    let content = match name {
                        "kernel" => state.kernel.variant(version, arch),
                        _ => state.rootfs.variant(version, arch),
                    };
                    // A file that changed after the last build dates the artifact.
                    let changed = content.modified()?.unwrap_or(state.built);
                    Ok((content, changed.max(state.built)))
                })
            }
            Route::Initrd(id) => {
                let serial = self.serial.fetch_add(1, Ordering::Relaxed);
                artifact.initrd(
                    id,
                    &state.directory,
                    |version, arch| Ok(state.initrd.variant(version, arch)),
                    (self.nonce, serial),
                )
            }
        }
    }
}

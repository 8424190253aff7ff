//! Around every request: a span, a count, HEAD for every GET, headers that protect a browser.

use std::collections::HashMap;
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use opentelemetry::KeyValue;
use opentelemetry::trace::TraceContextExt as _;
use poem::{Body, Endpoint, IntoResponse, Request, Response, Result};
use poem_openapi::OperationId;
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::boot_id::{self, BootId};
use super::context::Context;
use super::trace;
use super::trouble::{MAX_TARGET, Trouble};

/// What it takes to tell of a request.
#[derive(Debug)]
pub struct Observer {
    /// What counts it.
    pub context: Arc<Context>,
    /// Path of each operation.
    pub routes: HashMap<String, String>,
}

/// Answers a request and tells of it.
pub async fn observe(
    next: Arc<impl Endpoint<Output = Response>>,
    mut request: Request,
    observer: Arc<Observer>,
) -> Result<Response> {
    let Observer { context, routes } = &*observer;
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let peer = client(&request);
    let span = tracing::info_span!(
        "request",
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        http.request.method = known(&method),
        http.route = tracing::field::Empty,
        http.response.status_code = tracing::field::Empty,
        url.scheme = request.scheme().as_str(),
        client.address = peer,
        operation = tracing::field::Empty,
    );
    let boot = boot_of(&request, context);
    trace::adopt(&span, boot.as_ref(), request.headers());
    if let Some(boot) = boot {
        request.set_data(boot);
    }
    let mut response = answer(next, request, &method, &path).instrument(span.clone()).await;

    let status = response.status().as_u16();
    // What has no operation is the document itself, the Swagger UI, or nothing at all.
    let operation = response.data::<OperationId>().map_or("other", |operation| operation.0);
    let route = routes.get(operation);
    match route {
        Some(route) => tracing::record_all!(span, http.route = route, http.response.status_code = status, operation),
        None => tracing::record_all!(span, http.response.status_code = status, operation),
    }
    let exported = span.context();
    let exported = exported.span();
    if exported.span_context().is_sampled() {
        exported.set_attribute(KeyValue::new("url.path", path.clone()));
        // What a span is called can only be said once its route is known; the field `otel.name` no longer counts by then.
        if let Some(route) = route {
            exported.update_name(format!("{method} {route}"));
        }
        if status >= 500 {
            exported.set_attribute(KeyValue::new("error.type", status.to_string()));
        }
    }
    if status >= 500 {
        span.record("otel.status_code", "ERROR");
    }
    context.metrics.request(method.as_str(), operation, status);
    // The path may hold anything; it is logged in quotes and without its query.
    span.in_scope(|| tracing::debug!(%method, path, status, peer, "request"));

    let policy = match path.starts_with("/swagger") {
        true => {
            "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
        }
        false => {
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    Ok(response)
}

/// A method as the semantic conventions of OpenTelemetry have it, which are a closed list.
fn known(method: &Method) -> &str {
    let is_known = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"].contains(&method.as_str());
    if is_known { method.as_str() } else { "_OTHER" }
}

/// The boot that a file is fetched for, if its address holds a signed id.
fn boot_of(request: &Request, context: &Context) -> Option<BootId> {
    let query = request.uri().query()?;
    let value = query
        .split('&')
        .find_map(|pair| pair.strip_prefix(boot_id::PARAMETER)?.strip_prefix('='))?;
    context.boot_keys.load().verify(value, jiff::Timestamp::now())
}

/// Mark of a request that was HEAD: nothing of its answer is booted.
#[derive(Debug, Clone, Copy)]
struct HeadOnly;

/// Whether a request was HEAD.
pub fn is_head(request: &Request) -> bool {
    request.data::<HeadOnly>().is_some()
}

/// The address a request came from, without its port.
pub fn client(request: &Request) -> String {
    request
        .remote_addr()
        .as_socket_addr()
        .map_or_else(String::new, |address| address.ip().to_string())
}

async fn answer(next: Arc<impl Endpoint<Output = Response>>, mut request: Request, method: &Method, path: &str) -> Response {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > MAX_TARGET {
        return Trouble::TargetTooLong(target).into_response();
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = Trouble::Framework(StatusCode::METHOD_NOT_ALLOWED, String::new()).into_response();
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    // Artifacts have a HEAD of their own: their GET would open a transfer.
    let as_get = method == Method::HEAD && !path.starts_with("/boot-artifacts/");
    if as_get {
        request.set_method(Method::GET);
        request.set_data(HeadOnly);
    }
    let response = match next.call(request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    match as_get {
        true => without_body(response).await,
        false => response,
    }
}

/// The same answer without its body, which still says how long the body is.
async fn without_body(response: Response) -> Response {
    if response
        .content_type()
        .is_some_and(|kind| kind.starts_with("text/event-stream"))
    {
        // It has no end.
        return Response::from_parts(response.into_parts().0, Body::empty());
    }
    let (parts, body) = response.into_parts();
    let length = body.into_bytes().await.map_or(0, |bytes| bytes.len());
    let mut response = Response::from_parts(parts, Body::empty());
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

//! The script endpoint of assisted-service: who may ask, what a machine gets, and in which of its error shapes it says no.
//!
//! Follows assisted-service `internal/bminventory/inventory_v2_handlers.go` and `swagger.yaml`.

use http::{HeaderMap, Method, StatusCode, header};
use serde_json::json;

use super::address::Base;
use super::environment::{Entry, EnvironmentSpec, Refusal};
use super::reply::Reply;
use super::route::Query;

/// Everything this endpoint sends has this type, unless it never reached the handler.
const BINARY: &str = "application/octet-stream";

/// Errors of routing, validation and a missing token have this one.
const JSON: &str = "application/json";

/// A request for `/api/assisted-install/v2/infra-envs/{id}/downloads/files`.
#[derive(Debug)]
pub struct ScriptRequest<'a> {
    /// The method.
    pub method: &'a Method,
    /// The decoded query.
    pub query: &'a Query,
    /// The headers.
    pub headers: &'a HeaderMap,
}

impl ScriptRequest<'_> {
    /// The answer, given what is known about the token and the environment.
    pub fn answer(&self, token: Result<(), Refusal>, entry: Option<&Entry>, base: &Base) -> Reply {
        self.checked(token, entry, base).with(header::VARY, "Accept-Encoding")
    }

    /// The checks in the order of the real service: route, token, validation, handler.
    fn checked(&self, token: Result<(), Refusal>, entry: Option<&Entry>, base: &Base) -> Reply {
        if *self.method != Method::GET {
            let message = format!("method {} is not allowed, but [GET] are", self.method);
            let reply = refused(405, &message, JSON).with(header::ALLOW, "GET");
            // Even the length is missing from the answer to HEAD.
            return match *self.method {
                Method::HEAD => Reply::empty(StatusCode::METHOD_NOT_ALLOWED)
                    .with(header::CONTENT_TYPE, JSON)
                    .with(header::ALLOW, "GET"),
                _ => reply,
            };
        }
        match token {
            Err(Refusal::NoToken) => {
                let message = "unauthenticated for invalid credentials";
                return refused(401, message, JSON);
            }
            Err(Refusal::BadToken(message)) => return refused(401, &message, BINARY),
            _ => {}
        }
        if !accepts_binary(self.headers) {
            let message = "unsupported media type requested, only [application/octet-stream] are available";
            return refused(400, message, JSON);
        }
        let mac = self.query.get("mac").filter(|mac| !mac.is_empty());
        if let Some(mac) = mac.filter(|mac| !is_mac(mac)) {
            let message = format!("mac in query must be of type mac: {mac:?}");
            return refused(400, &message, JSON);
        }
        let kind = self.query.get("ipxe_script_type").unwrap_or_default();
        if !matches!(kind, "" | "discovery-image-always" | "boot-order-control") {
            let message = "ipxe_script_type in query should be one of \
                           [discovery-image-always boot-order-control]";
            return refused(400, message, JSON);
        }
        let entry = match (token, entry) {
            (Err(Refusal::Deleted), _) => return failed(404, "record not found"),
            (Ok(()), Some(entry)) => entry,
            _ => return failed(404, "Object Not Found"),
        };
        let text = match mac {
            // A given MAC makes the answer one for this host, whatever the type says.
            Some(mac) => match entry.spec.boot_refusal(mac) {
                Some((status, reason)) => return failed(status, &reason),
                None => boot(&entry.spec, base),
            },
            None if kind == "boot-order-control" => redirect(&entry.spec, base),
            None => boot(&entry.spec, base),
        };
        self.file(entry, text)
    }

    /// The text as a file to be stored: assisted-service `pkg/filemiddleware/middleware.go`. No ranges and no conditions.
    fn file(&self, entry: &Entry, text: String) -> Reply {
        let disposition = format!("attachment; filename=\"{}-ipxe-script\"", entry.spec.id);
        Reply::bytes(StatusCode::OK, BINARY, text)
            .with(header::CONTENT_DISPOSITION, &disposition)
            .with(header::LAST_MODIFIED, &httpdate::fmt_http_date(entry.updated))
    }
}

/// The shape of errors before the handler: the code is a number.
fn refused(status: u16, message: &str, media_type: &str) -> Reply {
    let body = json!({ "code": status, "message": message });
    Reply::bytes(code(status), media_type, body.to_string())
}

/// The shape of errors of the handler: the code is a text, and the type claims to be a file.
fn failed(status: u16, reason: &str) -> Reply {
    let body = json!({
        "code": status.to_string(), "href": "", "id": status, "kind": "Error", "reason": reason,
    });
    Reply::bytes(code(status), BINARY, body.to_string())
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Whether the `Accept` header admits the only type there is.
fn accepts_binary(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return true;
    }
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|item| item.split(';').next().unwrap_or_default().trim())
        .any(|item| matches!(item, "" | "*/*" | "application/*" | BINARY))
}

/// Every spelling that passes as a MAC address, though only the one with colons ever finds a host.
fn is_mac(text: &str) -> bool {
    let (width, separator) = match text {
        _ if text.contains(':') => (2, ":"),
        _ if text.contains('-') => (2, "-"),
        _ if text.contains('.') => (4, "."),
        _ => (12, ":"),
    };
    let groups: Vec<&str> = text.split(separator).collect();
    groups.len() * width == 12
        && groups
            .iter()
            .all(|group| group.len() == width && group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// `ipxeBootScriptFormat`: initrd before kernel, query keys in alphabetical order, only the initrd signed.
fn boot(environment: &EnvironmentSpec, base: &Base) -> String {
    let initrd = base.initrd(environment);
    let kernel = base.artifact(environment, "kernel");
    let rootfs = base.artifact(environment, "rootfs");
    let mut arguments = String::new();
    for argument in &environment.kernel_arguments {
        arguments.push(' ');
        arguments.push_str(argument);
    }
    format!(
        "#!ipxe\n\
         initrd --name initrd {initrd}\n\
         kernel {kernel} initrd=initrd coreos.live.rootfs_url={rootfs} random.trust_cpu=on rd.luks.options=discard \
         ignition.firstboot ignition.platform.id=metal console=tty1 console=ttyS1,115200n8 \
         coreos.inst.persistent-kargs=\"console=tty1 console=ttyS1,115200n8\"{arguments}\n\
         boot\n"
    )
}

/// `ipxeRedirectScriptFormat`: the path prefix of the base URL is lost here, in the real service as well.
fn redirect(environment: &EnvironmentSpec, base: &Base) -> String {
    let EnvironmentSpec { id, token, .. } = environment;
    let origin = &base.origin;
    format!(
        "#!ipxe\n\
         chain {origin}/api/assisted-install/v2/infra-envs/{id}/downloads/files?api_key={token}&file_name=ipxe-script&mac=${{net0/mac}}\n"
    )
}

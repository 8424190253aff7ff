//! The endpoints of assisted-image-service: kernel, rootfs and initrd.
//!
//! Follows assisted-image-service `internal/handlers/boot_artifacts.go`, `initrd.go` and `assisted_service_client.go`.

use std::io;
use std::time::SystemTime;

use http::{HeaderMap, Method, StatusCode};

use super::content::{Blob, Content};
use super::download::Download;
use super::environment::{Directory, Refusal};
use super::initrd;
use super::reply::Reply;
use super::route::Query;

/// The address under which the image service reaches assisted-service inside the cluster. It stands in error bodies, and should
/// stand nowhere else.
pub const INTERNAL_URL: &str = "http://assisted-service.assisted-installer.svc:8091";

/// A request to the image service.
#[derive(Debug)]
pub struct ArtifactRequest<'a> {
    /// The method.
    pub method: &'a Method,
    /// The decoded query.
    pub query: &'a Query,
    /// The headers.
    pub headers: &'a HeaderMap,
}

impl ArtifactRequest<'_> {
    /// `/boot-artifacts/{name}`: open to everybody.
    pub fn boot_artifact(
        &self,
        name: &str,
        images: &Directory,
        content: impl FnOnce(&str, &str) -> io::Result<(Content, SystemTime)>,
    ) -> Reply {
        if !matches!(*self.method, Method::GET | Method::HEAD) {
            return Reply::empty(StatusCode::METHOD_NOT_ALLOWED);
        }
        let (file, media_type) = match name {
            "kernel" => ("vmlinuz", "application/octet-stream"),
            "rootfs" => ("rootfs.img", "application/x-raw-disk-image"),
            _ => {
                let message = format!("Failed to parse artifact: malformed download path: /boot-artifacts/{name}");
                return Reply::text(StatusCode::NOT_FOUND, &message);
            }
        };
        let (version, arch) = match self.image(images) {
            Ok(image) => image,
            Err(why) => {
                let message = format!("Failed to parse query parameters: {why}");
                return Reply::text(StatusCode::BAD_REQUEST, &message);
            }
        };
        let made = content(version, arch).and_then(|(content, modified)| {
            Ok(Download {
                blob: Blob::join([content])?,
                modified,
                disposition: format!("attachment; filename={file}"),
                media_type,
            })
        });
        self.download(made)
    }

    /// `/images/{id}/pxe-initrd`: any method is answered like GET, and every request gets another body, ranges included.
    pub fn initrd(
        &self,
        id: &str,
        directory: &Directory,
        content: impl FnOnce(&str, &str) -> io::Result<Content>,
        (nonce, serial): (u64, u64),
    ) -> Reply {
        if !is_id(id) {
            return Reply::text(StatusCode::NOT_FOUND, "404 page not found");
        }
        if self.query.get("version").unwrap_or_default().is_empty() {
            let message = "'version' parameter required for initrd download";
            return Reply::text(StatusCode::BAD_REQUEST, message);
        }
        let (version, arch) = match self.image(directory) {
            Ok(image) => image,
            Err(why) => return Reply::text(StatusCode::BAD_REQUEST, &format!("{why} ")),
        };
        let updated = match directory.check_token(id, self.query.get("api_key")) {
            Ok(()) => directory.get(id).map(|entry| entry.updated),
            Err(Refusal::NoToken | Refusal::BadToken(_)) => {
                return self.ignition_error(id, StatusCode::UNAUTHORIZED);
            }
            Err(Refusal::Foreign | Refusal::Deleted) => None,
        };
        let Some(updated) = updated else {
            return self.ignition_error(id, StatusCode::NOT_FOUND);
        };
        let made = content(version, arch).and_then(|stock| {
            Ok(Download {
                blob: initrd::fresh(&stock, id, nonce, serial)?,
                modified: updated,
                disposition: format!("attachment; filename={id}-initrd.img"),
                media_type: "application/x-raw-disk-image",
            })
        });
        self.download(made)
    }

    /// The error that names the internal URL and the token.
    pub fn ignition_error(&self, id: &str, status: StatusCode) -> Reply {
        let key = match self.query.get("api_key") {
            Some(token) => format!("api_key={token}&"),
            None => String::new(),
        };
        let message = format!(
            "error retrieving ignition content: ignition request to {INTERNAL_URL}/api/assisted-install/v2/infra-envs/{id}/downloads/files?{key}file_name=discovery.ign returned status {}",
            status.as_u16()
        );
        Reply::text(status, &message)
    }

    /// Version and architecture that are asked for, or why there is no such image.
    fn image(&self, images: &Directory) -> Result<(&str, &str), String> {
        let version = self.query.get("version").unwrap_or_default();
        if version.is_empty() {
            return Err("'version' parameter required".to_owned());
        }
        let arch = self.query.get("arch").filter(|arch| !arch.is_empty());
        let arch = arch.unwrap_or("x86_64");
        match images.has_image(version, arch) {
            true => Ok((version, arch)),
            false => Err(format!("version for {version} {arch}, not found")),
        }
    }

    fn download(&self, made: io::Result<Download>) -> Reply {
        match made {
            Ok(download) => download.answer(self.method, self.headers),
            // An ISO that cannot be read: no body.
            Err(_) => Reply::empty(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

/// Whether the text is a UUID in lower case; the route knows no other.
fn is_id(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    lengths == [8, 4, 4, 4, 12] && groups.concat().bytes().all(hexadecimal)
}

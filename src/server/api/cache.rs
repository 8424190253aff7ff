//! What the artifact cache holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use poem_openapi::payload::Json;
use poem_openapi::types::Example;
use poem_openapi::{ApiResponse, Object, OpenApi};

use crate::boot::artifact::ArtifactKind;
use crate::server::cache::Cache;
use crate::server::cache::held::{Held, Progress};
use crate::server::cache::store::{Key, time};
use crate::server::context::Context;

use super::Tag;
use super::problem::Failure;

/// The cache.
pub struct CacheApi {
    context: Arc<Context>,
}

/// The artifact cache of this server; others have their own.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none, example)]
struct CacheView {
    /// `Off` (no `--cache-dir`), `InUse`, or `Trouble`: files are then passed through, or cannot be kept.
    state: String,
    /// What the trouble is.
    trouble: Option<String>,
    /// The folder.
    folder: Option<String>,
    /// Bytes that it may hold.
    size_bytes: u64,
    /// Bytes that it holds, files being filled with their whole length.
    used_bytes: u64,
    /// What it holds, last used first.
    artifacts: Vec<HeldView>,
}

/// One artifact in the cache.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
struct HeldView {
    /// `kernel` or `rootfs`.
    kind: String,
    /// Where it is from, without anything secret.
    source: String,
    /// InfraEnvs that use it now, as `namespace/name`.
    environments: Vec<String>,
    /// `Filling`, `Complete`, `Unverified` (left by an earlier process; its digest is compared before it is served) or `Failed`.
    state: String,
    /// How much of it is there, in percent.
    percent: u8,
    /// Length in bytes.
    length_bytes: u64,
    /// SHA-256, once it is complete.
    sha256: Option<String>,
    /// Entity tag of the build.
    etag: Option<String>,
    /// Upstream's date of the build.
    last_modified: Option<String>,
    /// When upstream was first seen to have this build.
    first_seen: String,
    /// When upstream was last seen to have it.
    confirmed: String,
    /// When a machine last asked for it.
    last_used: String,
    /// Answers from it since the server started.
    hits: u64,
}

impl Example for CacheView {
    fn example() -> Self {
        let at = "2026-11-24T10:00:00Z".to_owned();
        Self {
            state: "InUse".to_owned(),
            trouble: None,
            folder: Some("/var/cache/ipxe-bridge".to_owned()),
            size_bytes: 21_474_836_480,
            used_bytes: 1_153_433_600,
            artifacts: vec![HeldView {
                kind: "rootfs".to_owned(),
                source: "https://images.example.com/boot-artifacts/rootfs?arch=x86_64&version=4.16".to_owned(),
                environments: vec!["lab/discovery".to_owned()],
                state: "Filling".to_owned(),
                percent: 40,
                length_bytes: 1_153_433_600,
                sha256: None,
                etag: Some("\"69238a98-44c00000\"".to_owned()),
                last_modified: Some("Mon, 23 Nov 2026 22:50:00 GMT".to_owned()),
                first_seen: at.clone(),
                confirmed: at.clone(),
                last_used: at,
                hits: 12,
            }],
        }
    }
}

#[derive(ApiResponse)]
enum CacheResponse {
    /// What the cache holds
    #[oai(status = 200)]
    Cache(Json<CacheView>),
}

impl CacheApi {
    /// The group.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// Names of the environments that use an artifact.
    fn users(&self) -> BTreeMap<Key, Vec<String>> {
        let mut users: BTreeMap<Key, Vec<String>> = BTreeMap::new();
        let Ok(published) = self.context.inventory() else {
            return users;
        };
        for environment in published.inventory.environments() {
            for kind in [ArtifactKind::Kernel, ArtifactKind::Rootfs] {
                if let Some(url) = environment.artifacts.get(kind) {
                    users.entry(Key::of(url)).or_default().push(environment.name.to_string());
                }
            }
        }
        users
    }
}

#[OpenApi(tag = "Tag::Artifacts")]
impl CacheApi {
    /// What the artifact cache holds
    ///
    /// Every replica has a cache of its own; this is the one that answers.
    #[oai(path = "/cache", method = "get", operation_id = "cache")]
    async fn cache(&self) -> Result<CacheResponse, Failure> {
        Ok(CacheResponse::Cache(Json(match &self.context.cache {
            Some(cache) => CacheView::of(cache, &self.users()),
            None => CacheView {
                state: "Off".to_owned(),
                trouble: None,
                folder: None,
                size_bytes: 0,
                used_bytes: 0,
                artifacts: Vec::new(),
            },
        })))
    }
}

impl CacheView {
    fn of(cache: &Cache, users: &BTreeMap<Key, Vec<String>>) -> Self {
        let trouble = cache.trouble();
        let (used, size) = cache.bytes();
        let mut held = cache.held();
        held.sort_by_key(|held| std::cmp::Reverse(held.last_used()));
        Self {
            state: if trouble.is_some() { "Trouble" } else { "InUse" }.to_owned(),
            trouble,
            folder: Some(cache.folder().display().to_string()),
            size_bytes: size,
            used_bytes: used,
            artifacts: held
                .iter()
                .map(|held| HeldView::of(held, users.get(&held.key).cloned().unwrap_or_default()))
                .collect(),
        }
    }
}

impl HeldView {
    fn of(held: &Held, environments: Vec<String>) -> Self {
        let facts = held.facts();
        let progress = held.progress();
        let at = |seconds| jiff::Timestamp::try_from(time(seconds)).map_or_else(|_| String::new(), |time| time.to_string());
        let percent = match &progress {
            Progress::Filling(bytes) => bytes.saturating_mul(100) / held.build.length.max(1),
            Progress::Unverified | Progress::Complete => 100,
            Progress::Failed(_) => 0,
        };
        let state = match progress {
            Progress::Filling(_) => "Filling",
            Progress::Unverified => "Unverified",
            Progress::Complete => "Complete",
            Progress::Failed(_) => "Failed",
        };
        Self {
            kind: facts.kind,
            source: facts.source,
            environments,
            state: state.to_owned(),
            percent: u8::try_from(percent).unwrap_or(100),
            length_bytes: held.build.length,
            sha256: Some(facts.sha256).filter(|digest| !digest.is_empty()),
            etag: held.build.validator.entity_tag(),
            last_modified: held.build.validator.last_modified(),
            first_seen: at(facts.first_seen),
            confirmed: at(facts.confirmed),
            last_used: at(facts.used),
            hits: held.hits.load(Ordering::Relaxed),
        }
    }
}

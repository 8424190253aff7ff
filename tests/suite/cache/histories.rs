//! Hours of an unsteady upstream in a minute: the cache's times are shortened, and what happens is drawn by lot.

use std::sync::Arc;

use futures::TryStreamExt as _;
use ipxe_bridge::boot::artifact::{ArtifactKind, UpstreamUrl};
use ipxe_bridge::boot::environment::ArtifactUrls;
use ipxe_bridge::server::cache::held::Progress;
use ipxe_bridge::server::cache::{Cache, Settings};
use ipxe_bridge::server::metrics::{CacheResult, Metrics};
use ipxe_bridge::server::transfer::{Answer, Wanted};
use ipxe_bridge::server::upstream::Upstream;
use ipxe_bridge::server::validator::ByteRange;

use super::*;

/// What upstream had, by build: kernel and rootfs, each with its digest.
type Builds = Vec<[(Vec<u8>, String); 2]>;

#[tokio::test(flavor = "multi_thread")]
async fn hours_of_trouble_give_no_wrong_byte_and_no_mixed_pair() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let cached = Cached::start(400_000).await;
    let address = |target| {
        let url = cached.site.upstream.url_of(&id("a", "lab"), target).unwrap();
        url.parse::<UpstreamUrl>().unwrap()
    };
    let urls = ArtifactUrls {
        kernel: Some(address(Target::Kernel)),
        rootfs: Some(address(Target::Rootfs)),
        ..ArtifactUrls::default()
    };
    let now = || {
        [Target::Kernel, Target::Rootfs].map(|target| {
            let bytes = cached.expected(target);
            let digest = cached
                .site
                .upstream
                .content(&id("a", "lab"), target)
                .unwrap()
                .sha256()
                .unwrap();
            (bytes, digest)
        })
    };
    let mut builds: Builds = vec![now()];
    let settings = || Settings {
        folder: cached.folder.path().to_owned(),
        size: 1_000_000,
        fresh: Duration::from_millis(5),
    };
    let open = async || {
        let upstream = Arc::new(Upstream::new(Vec::new(), Vec::new(), 16).unwrap());
        Cache::open(settings(), upstream, Arc::<Metrics>::default()).await
    };
    let mut cache = open().await;
    let mut seed = 5;
    let (mut answers, mut stale, mut refused, mut cut) = (0, 0, 0, 0);
    for step in 0..4000 {
        match number(&mut seed, 40) {
            0 | 1 => {
                cached.site.upstream.new_build();
                builds.push(now());
            }
            2 => cached.site.upstream.set_ready(false),
            3..=5 => cached.site.upstream.set_ready(true),
            6 => cached
                .site
                .upstream
                .set_fault(Target::Rootfs, Some(Fault::CutAfter(number(&mut seed, 400_000))), Some(1)),
            7 => cached
                .site
                .upstream
                .set_fault(Target::Kernel, Some(Fault::Status(503)), Some(2)),
            8 => cached
                .site
                .upstream
                .set_fault(Target::Rootfs, Some(Fault::Status(500)), Some(1)),
            9 if step % 5 == 0 => {
                // The process ends and another one begins.
                cache.note_all().await;
                drop(cache);
                cache = open().await;
            }
            10 => tokio::time::sleep(Duration::from_millis(7)).await,
            _ => {}
        }
        let kind = [ArtifactKind::Kernel, ArtifactKind::Rootfs][number(&mut seed, 2) as usize];
        let which = usize::from(kind == ArtifactKind::Rootfs);
        let wanted = Wanted {
            range: (number(&mut seed, 3) == 0).then(|| ByteRange::From(number(&mut seed, 300_000), None)),
            ..Wanted::default()
        };
        let current = builds.len() - 1;
        let (content, result) = match cache.get(kind, urls.get(kind).unwrap(), &urls, &wanted).await {
            Ok((Answer::Content(content), result)) => (content, result),
            Ok((other, _)) => panic!("{other:?}"),
            Err(_) => {
                refused += 1;
                continue;
            }
        };
        let first = content.part.map_or(0, |part| part.first) as usize;
        let pieces: Result<Vec<_>, _> = content.body.into_stream(None, None).try_collect().await;
        let Ok(pieces) = pieces else {
            cut += 1;
            continue;
        };
        let body = pieces.concat();
        let build = builds.iter().rposition(|build| body == build[which].0[first..]);
        let build = build.unwrap_or_else(|| panic!("step {step}: bytes that no build ever had: {} from {first}", body.len()));
        answers += 1;
        match result {
            CacheResult::Stale => {
                stale += 1;
                let held = cache.held();
                let partner = held
                    .iter()
                    .find(|held| held.kind != kind && held.progress() == Progress::Complete);
                let digest = partner.map(|partner| partner.facts().sha256).unwrap_or_default();
                let partners = builds.iter().rposition(|build| digest == build[1 - which].1);
                assert!(
                    partners.is_none_or(|partners| build >= partners),
                    "step {step}: {kind} {build} beside {partners:?}"
                );
            }
            // Upstream said just now that it is this one.
            _ => assert!(
                build == current || build + 1 == current,
                "step {step}: build {build} of {current} ({result:?})"
            ),
        }
    }
    println!(
        "4,000 requests: {answers} right, {stale} of them without upstream, {refused} refused, {cut} cut, {} builds",
        builds.len()
    );
    assert!(answers > 2000 && stale > 50 && builds.len() > 100, "{answers} {stale}");
}

//! Watches of the cluster: every change becomes a change of a source; a lost connection makes the source old, never empty.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use futures::future::BoxFuture;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch;

use crate::crd::foreign::{self, Kind, Object};
use crate::crd::host_override::HostOverrideKind;

use super::convert::{self, Convert};
use super::metrics::Metrics;
use super::sources::{self, Converted, Item, Sources};

/// Objects per page of a list: bounds what is in memory at once while 10,000 hosts are read.
const PAGE: u32 = 250;
/// How often the API server is asked whether it is there, and how long it may take to say so.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// Pause after the first failure of a watch; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often an API that is not there is looked for.
const ABSENT_PAUSE: Duration = Duration::from_secs(60);

/// What is read of a cluster.
#[derive(Debug)]
pub struct Reads<'a> {
    /// Namespaces; all if there are none.
    pub namespaces: &'a [String],
    /// Labels of namespaces, where they are chosen so.
    pub namespace_selector: Option<&'a str>,
    /// Labels of InfraEnvs.
    pub environment_selector: Option<&'a str>,
}

/// Starts all watches: of the whole cluster, or of the given namespaces only.
pub fn start(
    client: &Client,
    reads: &Reads,
    (sources, metrics): (&Arc<Sources>, &Arc<Metrics>),
    spawn: &impl Fn(BoxFuture<'static, ()>),
) {
    let (reachable, listen) = watch::channel(0);
    spawn(Box::pin(heartbeat(client.clone(), reachable)));
    let scopes: Vec<Option<String>> = match reads.namespaces {
        [] => vec![None],
        some => some.iter().cloned().map(Some).collect(),
    };
    for scope in scopes {
        let watch = Watch {
            client: client.clone(),
            scope,
            sources: sources.clone(),
            metrics: metrics.clone(),
            reachable: listen.clone(),
            labels: None,
        };
        let labelled = |labels: &str| Watch {
            labels: Some(labels.to_owned()),
            ..watch.clone()
        };
        // Announced before anything runs: until each has listed everything the server is not ready.
        if let Some(selector) = reads.namespace_selector {
            spawn(labelled(selector).follow::<foreign::Namespace>());
        }
        match reads.environment_selector {
            Some(selector) => spawn(labelled(selector).follow::<foreign::InfraEnv>()),
            None => spawn(watch.clone().follow::<foreign::InfraEnv>()),
        }
        spawn(watch.clone().follow::<foreign::BareMetalHost>());
        spawn(watch.clone().follow::<foreign::Agent>());
        spawn(watch.follow::<HostOverrideKind>());
    }
}

/// Asks for the API server's version again and again, and counts how often it came back.
///
/// A watch alone does not notice a silent network for minutes, and its own pauses may be long when the API server returns.
async fn heartbeat(client: Client, returned: watch::Sender<u64>) {
    let mut was_there = true;
    loop {
        let answer = tokio::time::timeout(HEARTBEAT, client.apiserver_version()).await;
        let is_there = matches!(answer, Ok(Ok(_)));
        if is_there != was_there {
            match is_there {
                true => tracing::info!("the API server is back, all objects are listed again"),
                false => tracing::warn!("the API server does not answer"),
            }
            returned.send_modify(|count| *count += 1);
            was_there = is_there;
        }
        tokio::time::sleep(HEARTBEAT).await;
    }
}

/// What a watch of any kind needs.
#[derive(Clone)]
struct Watch {
    client: Client,
    scope: Option<String>,
    sources: Arc<Sources>,
    metrics: Arc<Metrics>,
    reachable: watch::Receiver<u64>,
    /// Labels of the objects, if not all count.
    labels: Option<String>,
}

impl Watch {
    /// Announces the source of one kind, and gives the task that follows it.
    fn follow<K: Convert>(self) -> BoxFuture<'static, ()> {
        let name = match &self.scope {
            None => K::KIND.to_owned(),
            Some(namespace) => format!("{} in {namespace}", K::KIND),
        };
        self.sources.announce(&name);
        Box::pin(follow::<K>(self, name))
    }
}

/// Follows one kind in one scope, for ever.
async fn follow<K: Convert>(watch: Watch, name: String) {
    let Watch {
        client,
        scope,
        sources,
        metrics,
        mut reachable,
        labels,
    } = watch;
    let api: Api<Object<K>> = match &scope {
        None => Api::all(client),
        Some(namespace) => Api::namespaced(client, namespace),
    };
    let mut config = watcher::Config::default().page_size(PAGE);
    config.label_selector = labels;
    let mut pause = FIRST_PAUSE;
    loop {
        // An odd count means that the API server is away.
        let count = *reachable.borrow_and_update();
        if count % 2 == 1 {
            sources.behind(&name, "the API server does not answer".to_owned());
        }
        let mut was_current = false;
        let failure = tokio::select! {
            failure = run(api.clone(), &config, &name, &sources, &mut was_current) => Some(failure),
            changed = reachable.changed() => match changed {
                Ok(()) => None,
                Err(_) => return,
            },
        };
        let Some(failure) = failure else {
            pause = FIRST_PAUSE;
            continue;
        };
        if was_current {
            pause = FIRST_PAUSE;
        }
        let this_pause = match is_optional::<K>() && is_absent(&failure) {
            true => {
                sources.absent(&name);
                ABSENT_PAUSE
            }
            false => {
                let why = describe::<K>(&failure);
                tracing::warn!(source = name, "watch failed: {why}");
                metrics.watch_failed(K::KIND);
                sources.behind(&name, why);
                pause
            }
        };
        tokio::select! {
            () = tokio::time::sleep(this_pause) => {}
            _ = reachable.changed() => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Lists and watches until something fails. The library resumes an ended watch and lists anew after a 410 by itself.
async fn run<K: Convert>(
    api: Api<Object<K>>,
    config: &watcher::Config,
    name: &str,
    sources: &Sources,
    was_current: &mut bool,
) -> watcher::Error {
    let mut listed = HashMap::new();
    let mut events = pin!(watcher::watcher(api, config.clone()));
    loop {
        match events.try_next().await {
            Ok(Some(Event::Init)) => listed.clear(),
            Ok(Some(Event::InitApply(object))) => {
                let (key, converted) = convert::convert(&object);
                let skipped = converted.skipped.map(Item::Skipped);
                match converted.item {
                    Some(item) => {
                        listed.extend(skipped.map(|skipped| (sources::note(&key), skipped)));
                        listed.insert(key, item);
                    }
                    None => listed.extend(skipped.map(|skipped| (key, skipped))),
                }
            }
            Ok(Some(Event::InitDone)) => {
                *was_current = true;
                sources.replace(name, std::mem::take(&mut listed));
            }
            Ok(Some(Event::Apply(object))) => {
                let (key, converted) = convert::convert(&object);
                sources.set(name, key, converted);
            }
            Ok(Some(Event::Delete(object))) => sources.set(name, convert::key(&object.metadata), Converted::default()),
            Ok(None) => return watcher::Error::NoResourceVersion,
            Err(error) => return error,
        }
    }
}

/// Whether a cluster without this kind is a normal one.
fn is_optional<K: Kind>() -> bool {
    [foreign::Agent::KIND, HostOverrideKind::KIND].contains(&K::KIND)
}

/// Whether the API server does not know the kind at all.
fn is_absent(failure: &watcher::Error) -> bool {
    matches!(failure, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}

/// What a person needs to know about a failed watch.
fn describe<K: Kind>(failure: &watcher::Error) -> String {
    let resource = match K::GROUP {
        "" => K::PLURAL.to_owned(),
        group => format!("{}.{group}", K::PLURAL),
    };
    let Some(error) = api_error(failure) else {
        return failure.to_string();
    };
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            format!(
                "this cluster has no {resource} of version {}: is its CustomResourceDefinition installed?",
                K::VERSION
            )
        }
        kube::Error::Api(status) if status.code == 403 => {
            format!("not allowed to list and watch {resource}: the role needs get, list and watch on it")
        }
        _ => cause(failure),
    }
}

/// Whether a right is missing.
pub(super) fn is_forbidden(failure: &watcher::Error) -> bool {
    matches!(api_error(failure), Some(kube::Error::Api(status)) if status.code == 403)
}

/// Why a watch of any kind failed, for a person.
pub(super) fn cause(failure: &watcher::Error) -> String {
    let Some(error) = api_error(failure) else {
        return failure.to_string();
    };
    match error {
        kube::Error::Api(status) if status.code == 401 => "the API server does not accept the credentials".to_owned(),
        kube::Error::Api(status) => format!("the API server answered {}: {}", status.code, status.message),
        other => format!("the API server cannot be reached: {}", root_cause(other)),
    }
}

fn api_error(failure: &watcher::Error) -> Option<&kube::Error> {
    match failure {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            Some(error)
        }
        _ => None,
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

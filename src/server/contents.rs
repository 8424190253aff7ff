//! ConfigMaps and Secrets that overrides take scripts from: in a cluster one watch for each that is named, in a folder read with the rest.
//!
//! A watch of one object needs only a right to that one object, so the namespace's own Role decides what the bridge may read
//! (`docs/overrides.md`).

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::task::{AbortHandle, JoinSet};

use crate::boot::content::{Content, ContentKind, ContentName};
use crate::boot::name::ObjectName;

use super::snapshot::Snapshot;
use super::sources::{Converted, Item, Sources};
use super::{watch, yaml};

/// Name of the source.
const SOURCE: &str = "scripts in ConfigMaps and Secrets";
/// How many objects are watched at most: each is a connection to the API server.
const MOST: usize = 500;
/// How long after a failure an object is asked for again.
const PAUSE: Duration = Duration::from_secs(5);

type Texts = BTreeMap<String, Option<Arc<str>>>;

/// An object that holds scripts.
trait Holder:
    Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static
{
    fn texts(self) -> Texts;
}

impl Holder for ConfigMap {
    fn texts(self) -> Texts {
        let texts = self.data.into_iter().flatten().map(|(key, text)| (key, Some(text.into())));
        let bytes = self
            .binary_data
            .into_iter()
            .flatten()
            .map(|(key, bytes)| (key, text(bytes.0)));
        bytes.chain(texts).collect()
    }
}

impl Holder for Secret {
    fn texts(self) -> Texts {
        let bytes = self.data.into_iter().flatten().map(|(key, bytes)| (key, text(bytes.0)));
        // Only files have this: the API server turns it into data.
        let texts = self
            .string_data
            .into_iter()
            .flatten()
            .map(|(key, text)| (key, Some(text.into())));
        bytes.chain(texts).collect()
    }
}

fn text(bytes: Vec<u8>) -> Option<Arc<str>> {
    String::from_utf8(bytes).ok().map(Into::into)
}

/// The object in a document of a folder. One that cannot be read is only told where it is asked for: a folder of Git may hold Secrets
/// that are encrypted.
pub(super) fn of_document(kind: &str, document: &str) -> Option<(String, Item)> {
    match kind {
        "ConfigMap" => of_file::<ConfigMap>(ContentKind::ConfigMap, document),
        _ => of_file::<Secret>(ContentKind::Secret, document),
    }
}

#[derive(serde::Deserialize)]
struct Named {
    metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
}

fn of_file<K: Holder>(kind: ContentKind, document: &str) -> Option<(String, Item)> {
    let named: Named = yaml::parse(document).ok()?;
    let namespace = named.metadata.namespace.as_deref().unwrap_or("default");
    let object = ObjectName::new(namespace, named.metadata.name.as_deref()?).ok()?;
    let name = ContentName { kind, object };
    let texts = yaml::parse::<K>(document)
        .map(Holder::texts)
        // The parser's words may hold what the object hides.
        .map_err(|_| format!("{name} cannot be read: its values do not have the form of a {kind}"));
    Some((name.to_string(), Item::Content(Arc::new(Content { name, texts }))))
}

/// Follows what the inventory's overrides name, for ever.
pub async fn follow(client: Client, snapshot: Arc<Snapshot>, sources: Arc<Sources>) {
    sources.replace(SOURCE, HashMap::new());
    let mut watches: HashMap<ContentName, AbortHandle> = HashMap::new();
    let mut tasks = JoinSet::new();
    let mut published = snapshot.subscribe();
    loop {
        let wanted = snapshot.ready().map(|published| published.inventory.wanted_contents());
        if let Ok(wanted) = wanted {
            watches.retain(|name, watch| {
                let is_wanted = wanted.binary_search(name).is_ok();
                if !is_wanted {
                    watch.abort();
                    sources.set(SOURCE, name.to_string(), Converted::default());
                }
                is_wanted
            });
            for name in wanted {
                if watches.contains_key(&name) {
                    continue;
                }
                if watches.len() >= MOST {
                    let why = format!("the bridge follows {MOST} ConfigMaps and Secrets already, which is its limit");
                    tell(&sources, &name, Err(why));
                    continue;
                }
                let task = one(client.clone(), name.clone(), sources.clone());
                watches.insert(name, tasks.spawn(task));
            }
        }
        // Tasks that were aborted are collected on the way.
        while tasks.try_join_next().is_some() {}
        if published.changed().await.is_err() {
            return;
        }
    }
}

async fn one(client: Client, name: ContentName, sources: Arc<Sources>) {
    match name.kind {
        ContentKind::ConfigMap => watch_one::<ConfigMap>(client, name, sources).await,
        ContentKind::Secret => watch_one::<Secret>(client, name, sources).await,
    }
}

async fn watch_one<K: Holder>(client: Client, name: ContentName, sources: Arc<Sources>) {
    let api: Api<K> = Api::namespaced(client, name.object.namespace());
    let config = watcher::Config::default().fields(&format!("metadata.name={}", name.object.name()));
    let mut known = false;
    loop {
        let mut events = watcher::watcher(api.clone(), config.clone()).boxed();
        let mut found = None;
        let failure = loop {
            match events.try_next().await {
                Ok(Some(watcher::Event::Init)) => found = None,
                Ok(Some(watcher::Event::InitApply(object))) => found = Some(object.texts()),
                Ok(Some(watcher::Event::InitDone)) => {
                    known = true;
                    tell(&sources, &name, found.take().ok_or_else(|| absent(&name)));
                }
                Ok(Some(watcher::Event::Apply(object))) => tell(&sources, &name, Ok(object.texts())),
                Ok(Some(watcher::Event::Delete(_))) => tell(&sources, &name, Err(absent(&name))),
                Ok(None) => break "the API server ended the watch".to_owned(),
                Err(error) => {
                    // A right that was taken away counts at once; an API server that is away does not make the script unknown.
                    known &= !watch::is_forbidden(&error);
                    break describe(&name, &error);
                }
            }
        };
        if !known {
            tell(&sources, &name, Err(failure));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn tell(sources: &Sources, name: &ContentName, texts: Result<Texts, String>) {
    let content = Content {
        name: name.clone(),
        texts,
    };
    let item = Some(Item::Content(Arc::new(content)));
    sources.set(SOURCE, name.to_string(), Converted { item, skipped: None });
}

fn absent(name: &ContentName) -> String {
    format!("{name} does not exist")
}

fn describe(name: &ContentName, error: &watcher::Error) -> String {
    if !watch::is_forbidden(error) {
        return format!("{name} cannot be read: {}", watch::cause(error));
    }
    let (namespace, object) = (name.object.namespace(), name.object.name());
    let resource = match name.kind {
        ContentKind::ConfigMap => "configmaps",
        ContentKind::Secret => "secrets",
    };
    format!(
        "the bridge may not read {name}: a Role in namespace {namespace} must let its ServiceAccount get, list and watch {resource} with \
         resourceNames [{object}]"
    )
}

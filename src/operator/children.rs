//! What the operator made, as the cluster has it now: one watch per kind. A change wakes up its bridge.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedSender;
use kube::api::DynamicObject;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt as _};

use super::kind::Kind;
use super::name;
use super::plan::Presence;
use super::reconcile::Stored;

/// How often a kind that is not there is looked for.
const ABSENT_PAUSE: Duration = Duration::from_secs(10);

/// Namespace and name.
type Key = (Option<String>, String);

/// What the operator made, as the cluster has it now.
#[derive(Debug, Default)]
pub struct Children(Mutex<BTreeMap<Kind, Known>>);

/// What is known of one kind.
#[derive(Debug, Default)]
struct Known {
    presence: Presence,
    objects: HashMap<Key, Arc<DynamicObject>>,
    applied: HashMap<Key, Applied>,
}

/// What was applied last: what was wanted, and which fields the operator owned afterwards.
///
/// Whoever changes or removes one of these fields takes it over from the operator (server-side apply keeps account of that), so as long
/// as all of it is the same there is nothing to write. It is lost with the process: the next one applies everything once, which changes
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The object's UID.
    pub uid: Option<String>,
    /// Digest of the object as it was wanted.
    pub wanted: String,
    /// Digest of the fields that the operator owned then.
    pub owned: String,
}

impl Children {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Kind, Known>> {
        // Every change is a single assignment: a panic in between cannot leave half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is known any more: another operator may have worked meanwhile.
    pub fn forget(&self) {
        self.lock().clear();
    }

    /// Which kinds the cluster has.
    pub fn kinds(&self) -> BTreeMap<Kind, Presence> {
        let known = self.lock();
        Kind::all()
            .map(|kind| (kind, known.get(&kind).map_or(Presence::Unknown, |known| known.presence)))
            .collect()
    }

    /// One object.
    pub fn get(&self, kind: Kind, namespace: Option<&str>, name: &str) -> Option<Arc<DynamicObject>> {
        let key = (namespace.map(str::to_owned), name.to_owned());
        self.lock().get(&kind)?.objects.get(&key).cloned()
    }

    /// All objects of a kind that are part of a bridge, by name.
    pub fn of(&self, kind: Kind, bridge: &str) -> Vec<Arc<DynamicObject>> {
        let lock = self.lock();
        let objects = lock.get(&kind).into_iter().flat_map(|known| known.objects.values());
        let mut found: Vec<_> = objects.filter(|object| instance(object) == Some(bridge)).cloned().collect();
        found.sort_by_key(|object| object.name_any());
        found
    }

    /// An object as the watch told it, or as the API server answered to a write; either may come first.
    pub fn set(&self, kind: Kind, object: Arc<DynamicObject>) {
        self.change(kind, |known| {
            let key = key(&object);
            if known.objects.get(&key).is_none_or(|known| version(known) <= version(&object)) {
                known.objects.insert(key, object);
            }
        });
    }

    /// Whether this was applied to the object last.
    pub fn knows(&self, kind: Kind, object: &DynamicObject, applied: &Applied) -> bool {
        self.lock().get(&kind).and_then(|known| known.applied.get(&key(object))) == Some(applied)
    }

    /// This was applied to the object.
    pub fn keep(&self, kind: Kind, object: &DynamicObject, applied: Applied) {
        self.change(kind, |known| _ = known.applied.insert(key(object), applied));
    }

    fn change(&self, kind: Kind, change: impl FnOnce(&mut Known)) {
        change(self.lock().entry(kind).or_default());
    }

    fn replace(&self, kind: Kind, objects: HashMap<Key, Arc<DynamicObject>>, presence: Presence) -> Vec<Arc<DynamicObject>> {
        let mut touched: Vec<_> = objects.values().cloned().collect();
        self.change(kind, |known| {
            touched.extend(known.objects.values().cloned());
            known.applied.retain(|key, _| objects.contains_key(key));
            known.presence = presence;
            known.objects = objects;
        });
        touched
    }
}

fn key(object: &DynamicObject) -> Key {
    (object.namespace(), object.name_any())
}

/// Versions of one API server grow (Kubernetes API concepts, "Resource versions").
fn version(object: &DynamicObject) -> Option<u64> {
    object.metadata.resource_version.as_deref()?.parse().ok()
}

/// The bridge that an object is part of.
fn instance(object: &DynamicObject) -> Option<&str> {
    object.labels().get(name::INSTANCE_LABEL).map(String::as_str)
}

/// Who is woken up.
#[derive(Debug, Clone)]
pub struct Wake {
    /// The bridge of an object that changed.
    pub one: UnboundedSender<ObjectRef<Stored>>,
    /// Every bridge: a kind appeared or went.
    pub all: UnboundedSender<()>,
}

impl Wake {
    fn owner(&self, object: &DynamicObject) {
        if let Some(bridge) = instance(object) {
            // Nobody listens once the operator ends.
            _ = self.one.unbounded_send(ObjectRef::new(bridge));
        }
    }
}

/// Follows one kind, for ever.
pub async fn follow(client: Client, kind: Kind, children: Arc<Children>, wake: Wake) {
    let api = Api::<DynamicObject>::all_with(client, &kind.resource());
    loop {
        run(api.clone(), kind, &children, &wake).await;
        // The list said that there is no such kind.
        let before = children.kinds().get(&kind).copied().unwrap_or_default();
        children.replace(kind, HashMap::new(), Presence::Absent);
        if before != Presence::Absent {
            tracing::info!("this cluster has no {}", kind.plural());
            _ = wake.all.unbounded_send(());
        }
        tokio::time::sleep(ABSENT_PAUSE).await;
    }
}

/// Lists and watches until the API server says that there is no such kind.
async fn run(api: Api<DynamicObject>, kind: Kind, children: &Children, wake: &Wake) {
    let config = watcher::Config::default().labels(&name::made_by_operator());
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut listed = HashMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => _ = listed.insert(key(&object), Arc::new(object)),
            Ok(Event::InitDone) => {
                let before = children.kinds().get(&kind).copied().unwrap_or_default();
                let touched = children.replace(kind, std::mem::take(&mut listed), Presence::Present);
                touched.iter().for_each(|object| wake.owner(object));
                if before != Presence::Present {
                    _ = wake.all.unbounded_send(());
                }
            }
            Ok(Event::Apply(object)) => {
                let object = Arc::new(object);
                children.set(kind, object.clone());
                wake.owner(&object);
            }
            Ok(Event::Delete(object)) => {
                children.change(kind, |known| {
                    known.objects.remove(&key(&object));
                    known.applied.remove(&key(&object));
                });
                wake.owner(&object);
            }
            Err(error) if kind.is_optional() && is_absent(&error) => return,
            Err(error) => tracing::warn!("{} cannot be watched: {error}", kind.plural()),
        }
    }
}

/// Whether the API server does not know the kind at all.
fn is_absent(failure: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match failure {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

//! The keys that sign the ids of boots: one Secret for all pods of a bridge, and a new key in it from time to time. Which keys there are is
//! known from an annotation, so that the operator reads of this Secret, too, only the metadata.

use std::collections::BTreeMap;

use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use ring::rand::SecureRandom as _;
use serde_json::{Map, Value, json};

use super::context::Context;
use super::error::Error;
use super::name;
use super::plan::Plan;
use super::trace;

/// A key signs for a month.
const LIFETIME: SignedDuration = SignedDuration::from_hours(30 * 24);
/// An id is good for a day, and pods take minutes to read a new key: after two days nothing needs the key before.
const OVERLAP: SignedDuration = SignedDuration::from_hours(48);

/// What is to become of the Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When each of the keys was made that are there afterwards, the newest last.
    pub keys: Vec<Timestamp>,
    /// The one that is new.
    pub added: Option<Timestamp>,
    /// Those that go.
    pub removed: Vec<Timestamp>,
}

/// What is due, given the times at which the present keys were made. Pure.
pub fn due(present: &[Timestamp], now: Timestamp) -> Option<Change> {
    // One from the future was made by a clock that was wrong, or by nobody.
    let (mut keys, mut removed): (Vec<_>, Vec<_>) = present.iter().copied().partition(|key| *key <= now);
    keys.sort_unstable();
    let added = keys
        .last()
        .is_none_or(|newest| now.duration_since(*newest) >= LIFETIME)
        .then_some(now);
    let is_superseded = |index: usize| keys.get(index + 1).is_some_and(|next| now.duration_since(*next) > OVERLAP);
    removed.extend((0..keys.len()).filter(|index| is_superseded(*index)).map(|index| keys[index]));
    if added.is_none() && removed.is_empty() {
        return None;
    }
    keys.retain(|key| !removed.contains(key));
    keys.extend(added);
    Some(Change { keys, added, removed })
}

/// Makes the Secret, adds a key to it, or removes an old one; mostly nothing.
///
/// # Errors
///
/// If the API server does not answer or refuses, or a Secret of that name is not the bridge's.
pub async fn ensure(plan: &Plan, ctx: &Context) -> Result<(), Error> {
    let name = name::boot_keys(&plan.bridge);
    let what = || format!("Secret {name}");
    let api = Api::<Secret>::namespaced(ctx.client.clone(), &plan.namespace);
    let found = api.get_metadata_opt(&name).await.map_err(Error::api("read", what()))?;
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
    let Some(found) = found else {
        let Some(change) = due(&[], now) else { return Ok(()) };
        let secret = Secret {
            metadata: super::build::annotated(plan, name.clone(), annotation(&change)),
            string_data: change.added.map(|key| BTreeMap::from([entry(key)])),
            type_: Some("Opaque".to_owned()),
            ..Secret::default()
        };
        return match trace::write("create", &what(), api.create(&PostParams::default(), &secret)).await {
            Ok(_) => {
                ctx.metrics.wrote_boot_keys();
                Ok(())
            }
            // Made meanwhile: it is looked at next time.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            Err(error) => Err(Error::api("create", what())(error)),
        };
    };
    if !found.owner_references().iter().any(|owner| owner.uid == plan.owner.uid) {
        return Err(Error::Taken(what()));
    }
    let present = read(found.annotations().get(name::BOOT_KEYS_ANNOTATION));
    let Some(change) = due(present.as_deref().unwrap_or_default(), now) else {
        return Ok(());
    };
    let removed = change.removed.iter().map(|key| (entry_name(*key), Value::Null));
    let data = match present {
        Some(_) => Value::Object(removed.collect()),
        // Nobody knows what is in it.
        None => Value::Null,
    };
    let added: Map<String, Value> = change
        .added
        .map(entry)
        .map(|(name, key)| (name, key.into()))
        .into_iter()
        .collect();
    let patch = json!({
        "metadata": {"annotations": annotation(&change), "resourceVersion": found.resource_version()},
        "data": data,
        "stringData": added,
    });
    let parameters = PatchParams {
        field_manager: Some(name::MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let patch = Patch::Merge(patch);
    match trace::write("patch", &what(), api.patch_metadata(&name, &parameters, &patch)).await {
        Ok(_) => {
            ctx.metrics.wrote_boot_keys();
            Ok(())
        }
        Err(error) => Err(Error::api("patch", what())(error)),
    }
}

fn annotation(change: &Change) -> BTreeMap<String, String> {
    let times: Vec<String> = change.keys.iter().map(Timestamp::to_string).collect();
    BTreeMap::from([(name::BOOT_KEYS_ANNOTATION.to_owned(), times.join(" "))])
}

/// `None` if there is no annotation, or one that is not the operator's.
fn read(annotation: Option<&String>) -> Option<Vec<Timestamp>> {
    annotation?.split_whitespace().map(|time| time.parse().ok()).collect()
}

/// The name of a key in the Secret.
fn entry_name(key: Timestamp) -> String {
    format!("key-{}", key.as_second())
}

/// A new key as the server reads it: when it was made, and what nobody can guess.
fn entry(key: Timestamp) -> (String, String) {
    let mut bytes = [0; 32];
    if ring::rand::SystemRandom::new().fill(&mut bytes).is_err() {
        tracing::error!("this system gives no random bytes: ids of boots can be guessed");
    }
    let secret = base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes);
    (entry_name(key), format!("{key} {secret}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hour * 3600).expect("valid")
    }

    #[test]
    fn a_key_is_followed_by_another_and_goes_two_days_later() {
        let month = 30 * 24;
        let made = due(&[], at(0)).expect("the first key");
        assert_eq!((made.keys.as_slice(), made.added), (&[at(0)][..], Some(at(0))));
        assert_eq!(due(&[at(0)], at(month - 1)), None);
        let second = due(&[at(0)], at(month)).expect("the second key");
        assert_eq!(second.keys, [at(0), at(month)]);
        assert!(second.removed.is_empty());
        assert_eq!(due(&second.keys, at(month + 48)), None, "both are known for two days");
        let alone = due(&second.keys, at(month + 49)).expect("the first one goes");
        assert_eq!((alone.keys, alone.added, alone.removed), (vec![at(month)], None, vec![at(0)]));
    }

    #[test]
    fn an_operator_that_was_away_and_a_clock_that_was_wrong_leave_a_key_that_signs() {
        let late = due(&[at(0), at(100)], at(5000)).expect("one more");
        assert_eq!((late.keys, late.removed), (vec![at(100), at(5000)], vec![at(0)]));
        let future = due(&[at(9000)], at(0)).expect("one of now");
        assert_eq!((future.added, &future.removed), (Some(at(0)), &vec![at(9000)]));
        assert_eq!(read(Some(&"nonsense".to_owned())), None);
        assert_eq!(
            read(Some(&annotation(&future)[name::BOOT_KEYS_ANNOTATION])),
            Some(future.keys)
        );
    }

    #[test]
    fn however_often_it_is_looked_there_are_at_most_two_keys() {
        let (mut keys, mut changes) = (vec![at(-10), at(5000)], 0);
        for hour in 0..20_000 {
            if let Some(change) = due(&keys, at(hour)) {
                (keys, changes) = (change.keys, changes + 1);
            }
            assert!((1..=2).contains(&keys.len()) && keys.is_sorted(), "{hour}: {keys:?}");
        }
        // The one of the future at once; then one a month, and two days later one less.
        assert!((50..60).contains(&changes), "{changes}");
    }
}

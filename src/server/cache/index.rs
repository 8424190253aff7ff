//! What is held, and what has to go when there is no more room.
//!
//! Invariant: what a machine is reading, or what is being filled, is never given up; kernel and rootfs that belong together go together.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::held::{Held, Progress};
use super::space::{Room, Space};
use super::store::Key;

/// What is held, by key; at most one build of each.
#[derive(Debug)]
pub struct Index {
    held: Mutex<HashMap<Key, Arc<Held>>>,
    limit: u64,
    space: Space,
}

/// There is not so much room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// It would not fit into an empty cache.
    #[error("it has {0} bytes, more than the whole cache may hold (--cache-size)")]
    TooLarge(u64),
    /// Everything else is in use.
    #[error("everything that is held is being read or filled, or is to stay")]
    InUse,
}

impl Index {
    /// Of at most so many bytes.
    pub fn new(limit: u64) -> Self {
        Self {
            held: Mutex::default(),
            limit,
            space: Space::default(),
        }
    }

    /// Bytes it may hold.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What held artifacts take, those included that are only still being read.
    pub fn space(&self) -> &Space {
        &self.space
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present build of an artifact.
    pub fn get(&self, key: &Key) -> Option<Arc<Held>> {
        self.lock().get(key).cloned()
    }

    /// Everything that is held.
    pub fn all(&self) -> Vec<Arc<Held>> {
        self.lock().values().cloned().collect()
    }

    /// Puts a build in the place of an earlier one, which goes when nobody reads it any more.
    pub fn insert(&self, held: Arc<Held>) {
        let earlier = self.lock().insert(held.key.clone(), held);
        if let Some(earlier) = earlier {
            earlier.condemn();
        }
    }

    /// Forgets a build, if it is still the present one; it goes when nobody reads it any more.
    pub fn remove(&self, held: &Arc<Held>) {
        let mut all = self.lock();
        if all.get(&held.key).is_some_and(|present| Arc::ptr_eq(present, held)) {
            all.remove(&held.key);
        }
        held.condemn();
    }

    /// Forgets as much as a further artifact needs, what was not used for longest first, and gives it to be erased. The room is taken at
    /// once: another artifact that begins at the same time is not promised the same.
    ///
    /// # Errors
    ///
    /// If that is not possible; then nothing was forgotten.
    pub fn make_room(&self, length: u64, to_stay: &HashSet<Key>) -> Result<(Vec<Arc<Held>>, Room), NoRoom> {
        if length > self.limit {
            return Err(NoRoom::TooLarge(length));
        }
        let mut all = self.lock();
        let mut victims: Vec<Key> = Vec::new();
        let mut freed = 0;
        let mut groups = groups(&all);
        groups.retain(|group| group.iter().all(|held| is_idle(held) && !to_stay.contains(&held.key)));
        groups.sort_by_key(|group| group.iter().map(|held| held.last_used()).max());
        let fits = |freed| self.space.used().saturating_sub(freed).saturating_add(length) <= self.limit;
        for group in groups {
            if fits(freed) {
                break;
            }
            freed += group.iter().map(|held| held.build.length).sum::<u64>();
            victims.extend(group.iter().map(|held| held.key.clone()));
        }
        if !fits(freed) {
            return Err(NoRoom::InUse);
        }
        let victims: Vec<_> = victims.iter().filter_map(|key| all.remove(key)).collect();
        victims.iter().for_each(|victim| victim.give_room_back());
        Ok((victims, self.space.take(length)))
    }

    /// Forgets what was not used for longest, for a disk that is fuller than the limit knows. Nothing if everything is in use.
    pub fn give_up_one(&self, to_stay: &HashSet<Key>) -> Vec<Arc<Held>> {
        let mut all = self.lock();
        let mut groups = groups(&all);
        groups.retain(|group| group.iter().all(|held| is_idle(held) && !to_stay.contains(&held.key)));
        let oldest = groups
            .into_iter()
            .min_by_key(|group| group.iter().map(|held| held.last_used()).max());
        let victims: Vec<Key> = oldest.into_iter().flatten().map(|held| held.key.clone()).collect();
        victims.iter().filter_map(|key| all.remove(key)).collect()
    }
}

/// Whether only the index has it. Under the lock of the index nobody can come to it meanwhile.
fn is_idle(held: &Arc<Held>) -> bool {
    Arc::strong_count(held) == 1 && !matches!(held.progress(), Progress::Filling(_))
}

/// Kernel and rootfs that belong together, and what belongs to nothing.
fn groups(all: &HashMap<Key, Arc<Held>>) -> Vec<Vec<&Arc<Held>>> {
    let mut seen = HashSet::new();
    let mut groups = Vec::new();
    for held in all.values() {
        let partner = held.partner().and_then(|key| all.get(&key));
        let group: Vec<_> = [Some(held), partner]
            .into_iter()
            .flatten()
            .filter(|held| seen.insert(&held.key))
            .collect();
        if !group.is_empty() {
            groups.push(group);
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::boot::artifact::{ArtifactKind, UpstreamUrl};
    use crate::server::cache::held::Build;
    use crate::server::cache::store::Facts;
    use crate::server::validator::Validator;

    fn key(name: &str) -> Key {
        let url: UpstreamUrl = format!("http://h/{name}").parse().expect("a URL");
        Key::of(&url)
    }

    fn held(index: &Index, folder: &std::path::Path, name: &str, partner: Option<&str>, length: u64) -> Key {
        let validator = Validator::Date(UNIX_EPOCH, Some(length));
        let mut facts = Facts::new(ArtifactKind::Kernel, name.to_owned(), &validator, length);
        facts.partner = partner.map(key);
        let file = std::fs::File::create(folder.join(format!("{name}.x.part"))).expect("a file");
        let build = Build {
            validator,
            length,
            content_type: None,
        };
        let stem = folder.join(format!("{name}.x"));
        let held = Held::filling(
            key(name),
            ArtifactKind::Kernel,
            build,
            facts,
            (file, stem),
            index.space().take(length),
        );
        held.advance(Progress::Complete);
        index.insert(held);
        std::thread::sleep(std::time::Duration::from_millis(2));
        key(name)
    }

    #[test]
    fn what_is_read_stays_and_pairs_go_together() {
        let folder = tempfile::tempdir().expect("a folder");
        let index = Index::new(100);
        let kernel = held(&index, folder.path(), "kernel-1", Some("rootfs-1"), 5);
        let rootfs = held(&index, folder.path(), "rootfs-1", Some("kernel-1"), 40);
        let other = held(&index, folder.path(), "rootfs-2", None, 40);
        assert_eq!(index.space().used(), 85);

        assert_eq!(index.make_room(15, &HashSet::new()).expect("room").0.len(), 0);
        let reader = index.get(&rootfs).expect("held");
        // The pair is older, but one of it is being read.
        let (victims, room) = index.make_room(30, &HashSet::new()).expect("room");
        assert_eq!(victims.iter().map(|held| &held.key).collect::<Vec<_>>(), [&other]);
        assert_eq!(
            index.space().used(),
            75,
            "what is to be erased no longer counts, what is about to come does"
        );
        assert_eq!(
            index.make_room(30, &HashSet::new()).err(),
            Some(NoRoom::InUse),
            "the same room is not promised twice"
        );
        drop((victims, room));
        assert_eq!(index.space().used(), 45);
        assert_eq!(index.make_room(60, &HashSet::new()).err(), Some(NoRoom::InUse));
        assert_eq!(index.make_room(101, &HashSet::new()).err(), Some(NoRoom::TooLarge(101)));
        drop(reader);
        assert_eq!(
            index.make_room(60, &HashSet::from([kernel.clone()])).err(),
            Some(NoRoom::InUse)
        );
        assert_eq!(
            index.make_room(60, &HashSet::new()).expect("room").0.len(),
            2,
            "both of the pair"
        );
        assert!(index.get(&kernel).is_none() && index.space().used() == 0);
    }
}

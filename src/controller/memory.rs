//! What this process remembers of single objects between two looks at them. Losing it costs a read or a wait, never a key
//! that somebody could hold.

use std::collections::{HashMap, HashSet};
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::key::{Hash, Key};
use crate::lifecycle::{Refusal, SecretFacts};

/// Notes by UID of the `ApiKey`.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<HashMap<String, Notes>>);

/// What is remembered of one `ApiKey`.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// A minted key on its way into its Secret.
    pub(super) held: Option<Held>,
    /// A key that is to be copied from another Secret, until it is announced.
    pub(super) source: Option<Key>,
    /// The announced versions that were seen, and since when they stand so.
    pub(super) announced: Option<(Vec<String>, Instant)>,
    /// What the Secret held when it was last read.
    pub(super) read: Option<Reading>,
    /// Why the Secret was refused, and until when not to ask again.
    pub(super) refused: Option<(Refusal, Instant)>,
    /// The resourceVersion that our last write returned, and when, until the watch has shown it.
    pub(super) written: Option<(String, Instant)>,
    /// Our finalizer was taken off: nothing is left to do, whatever the watch still shows.
    pub(super) done: bool,
    /// How many times in a row the object was not as it should be.
    pub(super) failures: u32,
    /// When the Secret's metadata was last mended, and how many times in a row.
    pub(super) mended: Option<(Instant, u32)>,
}

/// A minted key on its way into its Secret.
#[derive(Debug)]
pub(super) struct Held {
    /// The version that was announced for it.
    pub(super) version: i64,
    /// The hash that was announced.
    pub(super) hash: Hash,
    /// The key itself.
    pub(super) key: Key,
    /// Whether a create may have been carried out without an answer.
    pub(super) ambiguous: bool,
    /// When the API server last confirmed that the version stands announced.
    pub(super) confirmed: Instant,
    /// Since when it was to be delivered.
    pub(super) since: Instant,
    /// The resourceVersion with which it stands announced; `None` where that was not told yet, or it was sent already.
    pub(super) unsent_at: Option<String>,
}

impl Held {
    /// Whether the announcement can still be counted on without asking: nobody gives one up before it stood for `grace`.
    pub(super) fn is_fresh(&self, grace: Duration) -> bool {
        self.confirmed.elapsed() < grace / 2
    }
}

/// What a Secret looked like when it was last read or written by us. Nothing secret.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// What can be told from it.
    pub(super) facts: SecretFacts,
    /// Our own write that the watch has not shown yet; until when to trust it without.
    pub(super) unseen_until: Option<Instant>,
}

impl Memory {
    /// Takes out the notes of an object until they are dropped, be it by a panic. Nobody else works on it meanwhile.
    pub(super) fn borrow<'a>(&'a self, uid: &'a str) -> Borrowed<'a> {
        let notes = self.lock().remove(uid).unwrap_or_default();
        Borrowed {
            memory: self,
            uid,
            notes,
        }
    }

    /// Counts a failure and says how long to wait.
    pub(super) fn failed(&self, uid: &str, max: Duration) -> Duration {
        let mut all = self.lock();
        let notes = all.entry(uid.to_owned()).or_default();
        notes.back_off(max)
    }

    /// Drops the notes of objects that are gone. Keys among them are wiped.
    pub(super) fn keep_only(&self, living: &HashSet<String>) {
        self.lock().retain(|uid, _| living.contains(uid));
    }

    /// The UIDs of those whose next key was announced and not sent yet. No watch shows their announcements any more: they are not
    /// waited for.
    pub(super) fn unsent_to_hand_out(&self) -> HashSet<String> {
        let mut all = self.lock();
        let unsent = all.iter_mut().filter(|(_, notes)| {
            notes
                .held
                .as_ref()
                .is_some_and(|held| held.unsent_at.is_some())
        });
        unsent
            .map(|(uid, notes)| {
                notes.written = None;
                uid.clone()
            })
            .collect()
    }

    /// How many objects are in back-off.
    pub(super) fn failing(&self) -> usize {
        self.lock()
            .values()
            .filter(|notes| notes.failures > 0)
            .count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Notes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes that go back where they came from.
pub(super) struct Borrowed<'a> {
    memory: &'a Memory,
    uid: &'a str,
    notes: Notes,
}

impl Deref for Borrowed<'_> {
    type Target = Notes;

    fn deref(&self) -> &Notes {
        &self.notes
    }
}

impl DerefMut for Borrowed<'_> {
    fn deref_mut(&mut self) -> &mut Notes {
        &mut self.notes
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        let notes = std::mem::take(&mut self.notes);
        if !notes.is_empty() {
            self.memory.lock().insert(self.uid.to_owned(), notes);
        }
    }
}

impl Notes {
    /// Counts a failure and says how long to wait: half a second, doubled each time, up to `max`.
    pub(super) fn back_off(&mut self, max: Duration) -> Duration {
        let delay =
            Duration::from_millis(500).saturating_mul(2_u32.saturating_pow(self.failures.min(20)));
        self.failures = self.failures.saturating_add(1);
        delay.min(max)
    }

    /// Whether mending may go on: others who undo it at once get ever longer pauses.
    pub(super) fn may_mend(&self, max: Duration) -> bool {
        self.mended.is_none_or(|(last, times)| {
            let pause = if times < 3 {
                Duration::ZERO
            } else {
                Duration::from_secs(1).saturating_mul(2_u32.saturating_pow(times.min(20)))
            };
            last.elapsed() >= pause.min(max)
        })
    }

    /// Counts a mending. After ten quiet minutes the count starts anew.
    pub(super) fn note_mending(&mut self) {
        let times = self
            .mended
            .filter(|(last, _)| last.elapsed() < Duration::from_secs(600))
            .map_or(0, |(_, times)| times);
        self.mended = Some((Instant::now(), times.saturating_add(1)));
    }

    fn is_empty(&self) -> bool {
        self.held.is_none()
            && self.source.is_none()
            && self.announced.is_none()
            && self.read.is_none()
            && self.refused.is_none()
            && self.written.is_none()
            && !self.done
            && self.failures == 0
            && self.mended.is_none()
    }
}

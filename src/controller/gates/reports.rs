//! What is known about gates, and who waits for what they tell.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use kube::core::DeserializeGuard;
use kube::runtime::watcher;
use kube::{Resource, ResourceExt};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::folding::Folding;
use super::standing::Gates;
use super::waiting::{self, Key, Waiting};
use crate::api::ApiKey;

/// What is known about gates and what they told.
#[derive(Debug)]
pub(in crate::controller) struct Reports {
    gates: Mutex<Gates>,
    folding: Mutex<Folding>,
    waiting: Mutex<Waiting>,
    /// This process ends, and hands out what it holds.
    leaving: AtomicBool,
    /// Takes the ApiKeys whose turn has come.
    released: UnboundedSender<Key>,
    /// A use waits for its write.
    pub(super) waits: Notify,
    /// Cancelled once the watch has shown all ApiKeys: uses of what is not known are passed over.
    pub(super) apikeys_shown: CancellationToken,
}

impl Reports {
    /// Nothing was told yet. The ApiKeys that come out are to be looked at again: gates were waited for with them.
    pub(in crate::controller) fn new() -> (Self, UnboundedReceiver<Key>) {
        let (released, looked_at) = unbounded();
        let reports = Self {
            gates: Mutex::new(Gates::new(Instant::now())),
            folding: Mutex::default(),
            waiting: Mutex::default(),
            leaving: AtomicBool::new(false),
            released,
            waits: Notify::new(),
            apikeys_shown: CancellationToken::new(),
        };
        (reports, looked_at)
    }

    /// The watch has shown something of ApiKeys, and the store has it.
    pub(in crate::controller) fn apikeys(&self, event: &watcher::Event<DeserializeGuard<ApiKey>>) {
        let now = Instant::now();
        match event {
            watcher::Event::Init => self.gates().apikeys_listed_anew(),
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                self.reached(object, now);
                if let Ok(apikey) = &object.0 {
                    self.folding().seen(apikey);
                }
            }
            watcher::Event::Delete(object) => {
                self.reached(object, now);
                if let Some(uid) = &object.meta().uid {
                    self.folding().gone(uid);
                }
            }
            watcher::Event::InitDone => self.apikeys_shown.cancel(),
        }
    }

    /// From now on nothing waits for gates: this process ends, and a key that it holds would be lost with it.
    pub(in crate::controller) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// How many gates are current, behind and silent.
    pub(in crate::controller) fn counts(&self) -> [i64; 3] {
        self.gates().counts()
    }

    /// Whether all gates that report have reached `version` of an ApiKey; where not, it is released when they have, before `until`.
    pub(super) fn know(&self, apikey: &ApiKey, version: u128, until: Instant) -> bool {
        let (key, namespace) = (waiting::key(apikey), apikey.namespace().unwrap_or_default());
        // Both locks, in this order here and below: nothing is missed between the question and the wait.
        let gates = self.gates();
        let mut waiting = self.waiting();
        if self.leaving.load(Ordering::Relaxed)
            || gates.have_reached(&namespace, version, Instant::now())
        {
            waiting.end(&key);
            return true;
        }
        waiting.begin(key, version, until);
        false
    }

    /// Something was heard of gates, or was not for long enough.
    pub(super) fn release(&self) {
        let gates = self.gates();
        let now = Instant::now();
        let released = self.waiting().released(now, |namespace, version| {
            gates.have_reached(namespace, version, now)
        });
        for key in released {
            // Nobody takes it where the watches have ended.
            let _ = self.released.unbounded_send(key);
        }
    }

    fn reached(&self, object: &DeserializeGuard<ApiKey>, now: Instant) {
        let meta = object.meta();
        if let Some(version) = &meta.resource_version {
            self.gates()
                .apikey(meta.namespace.as_deref().unwrap_or_default(), version, now);
        }
    }

    pub(super) fn gates(&self) -> MutexGuard<'_, Gates> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn folding(&self) -> MutexGuard<'_, Folding> {
        self.folding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The record of what was asked and what came of it.

use super::call::{Call, Verb};
use hyper::body::Bytes;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// One request and its outcome so far.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) call: Call,
    /// What the API server answered; `None` while it has not, or was never asked.
    pub(crate) upstream: Option<u16>,
    /// What the operator was told; `None` while it was not, or never will be.
    pub(crate) answered: Option<u16>,
    /// The fault that acted on it, or why the API server could not be reached.
    pub(crate) trouble: Option<String>,
    /// With `record_bodies(true)`.
    pub(crate) request_body: Option<Bytes>,
    /// What the API server sent, with `record_bodies(true)`; never that of a watch.
    pub(crate) response_body: Option<Bytes>,
}

impl Record {
    /// The API server accepted it, whatever the operator was told.
    pub(crate) fn accepted(&self) -> bool {
        self.upstream.is_some_and(|code| (200..300).contains(&code))
    }

    /// The request body as JSON, if it was recorded and is.
    pub(crate) fn request_json(&self) -> Option<Value> {
        serde_json::from_slice(self.request_body.as_ref()?).ok()
    }

    /// The answer of the API server as JSON, if it was recorded and is.
    pub(crate) fn response_json(&self) -> Option<Value> {
        serde_json::from_slice(self.response_body.as_ref()?).ok()
    }
}

impl fmt::Display for Record {
    /// `update apikeys/status team-a/billing #1 -> 200, answered - (after: drop)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = |code: Option<u16>| code.map_or("-".to_owned(), |code| code.to_string());
        write!(f, "{} -> {}", self.call, code(self.upstream))?;
        if self.answered != self.upstream {
            write!(f, ", answered {}", code(self.answered))?;
        }
        if let Some(trouble) = &self.trouble {
            write!(f, " ({trouble})")?;
        }
        Ok(())
    }
}

/// All records since the last reset.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pages: Mutex<Pages>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Pages {
    /// Tells requests of an earlier generation, still in flight, from the present ones.
    generation: u64,
    records: Vec<Record>,
    ordinals: HashMap<(Verb, String), usize>,
}

/// The right to add to one record.
pub(super) struct Entry {
    journal: Arc<Journal>,
    generation: u64,
    index: usize,
}

impl Journal {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().expect("journal")
    }

    /// Opens a record and gives the call its ordinal.
    pub(super) fn open(self: &Arc<Self>, call: &mut Call) -> Entry {
        let mut pages = self.pages();
        let ordinal = pages
            .ordinals
            .entry((call.verb, call.target()))
            .or_default();
        *ordinal += 1;
        call.ordinal = *ordinal;
        pages.records.push(Record {
            call: call.clone(),
            upstream: None,
            answered: None,
            trouble: None,
            request_body: None,
            response_body: None,
        });
        let entry = Entry {
            journal: self.clone(),
            generation: pages.generation,
            index: pages.records.len() - 1,
        };
        self.changed.notify_all();
        entry
    }

    pub(super) fn reset(&self) {
        let mut pages = self.pages();
        let generation = pages.generation + 1;
        *pages = Pages {
            generation,
            ..Pages::default()
        };
    }

    pub(super) fn records(&self) -> Vec<Record> {
        self.pages().records.clone()
    }

    pub(super) fn wait(&self, limit: Duration, wanted: impl Fn(&Record) -> bool) -> bool {
        let pages = self.pages();
        let (pages, _) = self
            .changed
            .wait_timeout_while(pages, limit, |pages| !pages.records.iter().any(&wanted))
            .expect("journal");
        pages.records.iter().any(wanted)
    }

    pub(super) fn wait_quiet(
        &self,
        silence: Duration,
        limit: Duration,
        counted: impl Fn(&Call) -> bool,
    ) -> bool {
        let start = Instant::now();
        let end = start + limit;
        let mut pages = self.pages();
        loop {
            let calls = pages.records.iter().map(|record| &record.call);
            let last = calls.filter(|call| counted(call)).map(|call| call.at).max();
            let quiet_at = last.unwrap_or(start).max(start) + silence;
            let now = Instant::now();
            if now >= quiet_at {
                return true;
            }
            if now >= end {
                return false;
            }
            let pause = quiet_at.min(end) - now;
            pages = self.changed.wait_timeout(pages, pause).expect("journal").0;
        }
    }
}

impl Entry {
    /// Adds to the record, unless the journal was reset since.
    pub(super) fn note(&self, change: impl FnOnce(&mut Record)) {
        let mut pages = self.journal.pages();
        if pages.generation == self.generation
            && let Some(record) = pages.records.get_mut(self.index)
        {
            change(record);
            self.journal.changed.notify_all();
        }
    }
}

//! What goes wrong, when, and how often.

use super::call::Call;
use super::matcher::Matcher;
use super::signal::{Counter, Hold};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

/// On which side of the API server's work a fault acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// The API server has not seen the request.
    Before,
    /// The API server has answered in full and the operator does not know it. For a watch, which
    /// has no end: the head of the answer has arrived.
    After,
}

/// What happens to a request.
#[derive(Clone)]
pub(crate) enum Fault {
    /// This status code with a Kubernetes `Status` as the body.
    Respond(u16),
    /// The connection is closed without an answer.
    Drop,
    /// No answer comes. When the rule is removed the connection is closed.
    Hang,
    /// Waits for the release, then goes its normal way; after the API server's work this delays
    /// the answer without losing it.
    Delay(Hold),
    /// Runs a function at exactly this point, then closes the connection; see [`Fault::call`].
    Call(Hook),
}

/// The function of [`Fault::Call`].
#[derive(Clone)]
pub(crate) struct Hook(Arc<Mutex<dyn FnMut() + Send>>);

impl Fault {
    /// Runs `hook` (which may block), then closes the connection without an answer.
    pub(crate) fn call(hook: impl FnMut() + Send + 'static) -> Self {
        Self::Call(Hook(Arc::new(Mutex::new(hook))))
    }
}

impl Hook {
    pub(super) fn run(&self) {
        (self.0.lock().expect("an earlier run of the hook panicked"))();
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Respond(code) => write!(f, "respond {code}"),
            Self::Drop => f.write_str("drop"),
            Self::Hang => f.write_str("hang"),
            Self::Delay(_) => f.write_str("delay"),
            Self::Call(_) => f.write_str("call"),
        }
    }
}

/// A fault in force; a handle on it. Clones are the same rule, dropping them leaves it in force.
#[derive(Clone, Debug)]
pub(crate) struct Rule(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    matcher: Matcher,
    when: When,
    fault: Fault,
    tally: Mutex<Tally>,
    fired: Counter,
    removed: watch::Sender<bool>,
}

#[derive(Debug)]
struct Tally {
    matched: usize,
    acted: usize,
    limit: usize,
}

impl Rule {
    /// Acts `n` times in all instead of once.
    pub(crate) fn times(self, n: usize) -> Self {
        self.tally().limit = n;
        self
    }

    /// Acts every time until it is removed.
    pub(crate) fn always(self) -> Self {
        self.times(usize::MAX)
    }

    /// Blocks until it has acted (a hook: until it has returned); `false` when `limit` passes first.
    pub(crate) fn fired(&self, limit: Duration) -> bool {
        self.fired_times(1, limit)
    }

    /// Blocks until it has acted `n` times; `false` when `limit` passes first.
    pub(crate) fn fired_times(&self, n: u64, limit: Duration) -> bool {
        self.0.fired.wait(n, limit)
    }

    /// How often it has acted so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.fired.get()
    }

    /// Acts no more. Requests that hang by it are dropped.
    pub(crate) fn remove(&self) {
        self.0.removed.send_replace(true);
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.0.tally.lock().expect("rule")
    }

    /// Whether it acts on this call, given that no older rule does.
    fn takes(&self, call: &Call, free: bool) -> bool {
        if *self.0.removed.borrow() || !self.0.matcher.matches(call) {
            return false;
        }
        let mut tally = self.tally();
        tally.matched += 1;
        let acts = free && tally.matched >= self.0.matcher.first && tally.acted < tally.limit;
        tally.acted += usize::from(acts);
        acts
    }

    pub(super) fn when(&self) -> When {
        self.0.when
    }

    pub(super) fn fault(&self) -> &Fault {
        &self.0.fault
    }

    pub(super) fn mark_fired(&self) {
        self.0.fired.add(1);
    }

    pub(super) async fn wait_for_removal(&self) {
        let mut removed = self.0.removed.subscribe();
        // Cannot fail: `self` keeps the sender.
        let _ = removed.wait_for(|removed| *removed).await;
    }
}

impl fmt::Display for Rule {
    /// `after: drop`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = match self.0.when {
            When::Before => "before",
            When::After => "after",
        };
        write!(f, "{when}: {:?}", self.0.fault)
    }
}

/// All rules, oldest first.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Vec<Rule>>);

impl Faults {
    pub(super) fn add(&self, matcher: Matcher, when: When, fault: Fault) -> Rule {
        let rule = Rule(Arc::new(Inner {
            matcher,
            when,
            fault,
            tally: Mutex::new(Tally {
                matched: 0,
                acted: 0,
                limit: 1,
            }),
            fired: Counter::default(),
            removed: watch::Sender::new(false),
        }));
        self.0.lock().expect("faults").push(rule.clone());
        rule
    }

    pub(super) fn clear(&self) {
        for rule in self.0.lock().expect("faults").drain(..) {
            rule.remove();
        }
    }

    /// The rule that acts on this call; all rules count it.
    pub(super) fn pick(&self, call: &Call) -> Option<Rule> {
        let mut picked = None;
        for rule in self.0.lock().expect("faults").iter() {
            if rule.takes(call, picked.is_none()) {
                picked = Some(rule.clone());
            }
        }
        picked
    }
}

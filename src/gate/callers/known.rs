//! What the API server said, for a while; and one question at a time about the same thing.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::review::Silence;

/// An answer, and how long it holds.
#[derive(Clone)]
pub(super) struct Answer<V> {
    pub(super) value: V,
    /// Whether it is the kind that callers with a right to ask get.
    pub(super) good: bool,
    pub(super) until: Instant,
}

type Outcome<V> = Result<Answer<V>, Silence>;
type Asked<V> = watch::Receiver<Option<Outcome<V>>>;

/// Answers by what was asked about. Bounded: the oldest go first, and those that were good after all others, so that a flood of
/// made-up questions does not push the good ones out.
pub(super) struct Known<K, V> {
    table: Arc<Mutex<Table<K, V>>>,
}

struct Table<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// In the order of their numbers, each with entries that have got another number since.
    strangers: VecDeque<(u64, K)>,
    friends: VecDeque<(u64, K)>,
    next: u64,
    room: usize,
}

struct Entry<V> {
    asked: Asked<V>,
    good: bool,
    number: u64,
}

impl<K, V> Known<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(room: usize) -> Self {
        let (strangers, friends) = (VecDeque::new(), VecDeque::new());
        Self {
            table: Arc::new(Mutex::new(Table {
                entries: HashMap::new(),
                strangers,
                friends,
                next: 0,
                room: room.max(1),
            })),
        }
    }

    /// What is known, or what `question` finds out. It is told whether the last answer was good. It goes on when nobody waits for it
    /// any more: others may already do. What it fails with is told to all who wait, and not kept.
    pub(super) async fn ask<F>(&self, key: K, question: impl FnOnce(bool) -> F + Send) -> Outcome<V>
    where
        F: Future<Output = Outcome<V>> + Send + 'static,
    {
        let mut asked = self.asked(key, question);
        let told = asked
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|outcome| outcome.clone());
        told.unwrap_or_else(|| Err("the question was given up".into()))
    }

    fn asked<F>(&self, key: K, question: impl FnOnce(bool) -> F) -> Asked<V>
    where
        F: Future<Output = Outcome<V>> + Send + 'static,
    {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = table
            .entries
            .get(&key)
            .filter(|entry| entry.holds(Instant::now()))
        {
            return entry.asked.clone();
        }
        let (sender, asked) = watch::channel(None);
        let was_good = table.insert(key.clone(), asked.clone());
        drop(table);
        let (table, question) = (self.table.clone(), question(was_good));
        tokio::spawn(async move {
            let outcome = question.await;
            if let Ok(answer) = &outcome {
                table
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .rank(&key, answer.good);
            }
            let _ = sender.send(Some(outcome));
        });
        asked
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        let table = self.table.lock().unwrap();
        (
            table.entries.len(),
            table.strangers.len() + table.friends.len(),
        )
    }
}

impl<V> Entry<V> {
    /// Whether it is being asked about, or was and that still holds.
    fn holds(&self, now: Instant) -> bool {
        match &*self.asked.borrow() {
            Some(Ok(answer)) => now < answer.until,
            Some(Err(_)) => false,
            None => self.asked.has_changed().is_ok(),
        }
    }
}

impl<K: Clone + Eq + Hash, V> Table<K, V> {
    /// Takes a new question, in the place of an older one about the same. Tells whether that was answered well.
    fn insert(&mut self, key: K, asked: Asked<V>) -> bool {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.asked = asked;
            return entry.good;
        }
        while self.entries.len() >= self.room && self.forget_one() {}
        let number = self.number();
        self.strangers.push_back((number, key.clone()));
        self.entries.insert(
            key,
            Entry {
                asked,
                good: false,
                number,
            },
        );
        false
    }

    /// Notes whether the last answer was good.
    fn rank(&mut self, key: &K, good: bool) {
        let number = self.number();
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.good != good) else {
            return;
        };
        entry.good = good;
        entry.number = number;
        let queue = if good {
            &mut self.friends
        } else {
            &mut self.strangers
        };
        queue.push_back((number, key.clone()));
        let Self {
            strangers,
            friends,
            entries,
            room,
            ..
        } = self;
        for queue in [strangers, friends] {
            // What has got another number is left behind in its queue. Now and then that is swept out.
            if queue.len() > 2 * *room {
                queue.retain(|(number, key)| {
                    entries
                        .get(key)
                        .is_some_and(|entry| entry.number == *number)
                });
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn forget_one(&mut self) -> bool {
        loop {
            let Some((number, key)) = self
                .strangers
                .pop_front()
                .or_else(|| self.friends.pop_front())
            else {
                return false;
            };
            if self
                .entries
                .get(&key)
                .is_some_and(|entry| entry.number == number)
            {
                self.entries.remove(&key);
                return true;
            }
        }
    }
}

//! What the API server said, for a while; and one question at a time about the same thing.

use std::hash::Hash;

use moka::sync::Cache;
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

/// Answers by what was asked about. Bounded: what is asked for often stays. Good answers have a
/// cache of their own, from which no number of made-up tokens can evict them.
pub(super) struct ReviewCache<K, V> {
    good: Cache<K, Answer<V>>,
    /// Questions under way, and their outcome.
    asked: Cache<K, Asked<V>>,
}

impl<K, V> ReviewCache<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(room: usize) -> Self {
        let room = u64::try_from(room).unwrap_or(u64::MAX);
        let (good, asked) = (Cache::new(room), Cache::new(room));
        Self { good, asked }
    }

    /// What is known, or what `question` finds out, which is told whether the last answer was good.
    /// A question goes on when its first asker is gone. Those who wait for the question of another
    /// drop their own, and the token in it. A failure is told to all who wait, and not kept.
    pub(super) async fn ask<F>(&self, key: K, question: impl FnOnce(bool) -> F + Send) -> Outcome<V>
    where
        F: Future<Output = Outcome<V>> + Send + 'static,
    {
        let (now, last) = (Instant::now(), self.good.get(&key));
        let was_good = last.is_some();
        if let Some(answer) = last.filter(|answer| now < answer.until) {
            return Ok(answer);
        }
        let begin = || self.begin(key.clone(), question(was_good));
        let entry = self.asked.entry(key.clone());
        let entry = entry.or_insert_with_if(begin, |asked| !holds(asked, now));
        let mut asked = entry.into_value();
        let told = asked.wait_for(Option::is_some).await;
        let told = told.ok().and_then(|outcome| outcome.clone());
        told.unwrap_or_else(|| Err("the question was given up".into()))
    }

    fn begin(
        &self,
        key: K,
        question: impl Future<Output = Outcome<V>> + Send + 'static,
    ) -> Asked<V> {
        let (sender, asked) = watch::channel(None);
        let good = self.good.clone();
        tokio::spawn(async move {
            let outcome = question.await;
            match &outcome {
                Ok(answer) if answer.good => good.insert(key, answer.clone()),
                Ok(_) => good.invalidate(&key),
                Err(_) => {}
            }
            sender.send(Some(outcome))
        });
        asked
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> u64 {
        self.good.run_pending_tasks();
        self.asked.run_pending_tasks();
        self.good.entry_count() + self.asked.entry_count()
    }
}

/// Whether a question is under way, or was answered and that still holds.
fn holds<V>(asked: &Asked<V>, now: Instant) -> bool {
    match &*asked.borrow() {
        Some(Ok(answer)) => now < answer.until,
        Some(Err(_)) => false,
        None => asked.has_changed().is_ok(),
    }
}

//! The requests of one HTTP/2 connection, worked on in the connection's own task.
//!
//! A task for each would hand in the head of an answer and its body one after the other while another thread sends what is there:
//! see [`super::gathered`] for why an answer leaves whole. It also saves waking another thread for microseconds of work.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use hyper::rt::Executor;

type Request = Pin<Box<dyn Future<Output = ()> + Send>>;

type Queue = Mutex<Vec<Request>>;

/// Takes over the requests that a connection begins, as long as there is somebody to work on them.
///
/// A request holds one of these itself: were it to keep the queue in which it stands, those that a connection begins with its last
/// breath would stay for ever.
#[derive(Clone)]
pub(super) struct Begun(Weak<Queue>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Begun {
    fn execute(&self, request: F) {
        let Some(queue) = self.0.upgrade() else {
            return;
        };
        // As in a task of its own, a panic ends this request, which is reset, and no other.
        let contained = AssertUnwindSafe(request).catch_unwind().map(|_| ());
        queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::pin(contained));
    }
}

/// The requests of a connection that are under way.
#[derive(Default)]
pub(super) struct Streams {
    begun: Arc<Queue>,
    under_way: FuturesUnordered<Request>,
}

impl Streams {
    /// What begins them.
    pub(super) fn begun(&self) -> Begun {
        Begun(Arc::downgrade(&self.begun))
    }

    /// Works on all of them. Returns whether any is done: then the connection has something to send.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let mut done = false;
        loop {
            let begun =
                std::mem::take(&mut *self.begun.lock().unwrap_or_else(PoisonError::into_inner));
            self.under_way.extend(begun);
            match self.under_way.poll_next_unpin(context) {
                Poll::Ready(Some(())) => done = true,
                Poll::Ready(None) | Poll::Pending => return done,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::task::noop_waker_ref;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn a_request_that_panics_ends_no_other() {
        let mut streams = Streams::default();
        let mut context = Context::from_waker(noop_waker_ref());
        assert!(!streams.poll(&mut context), "there is none");
        let (answered, (answer, waited_for)) =
            (Arc::new(AtomicUsize::new(0)), oneshot::channel::<()>());
        let (begun, counted) = (streams.begun(), answered.clone());
        begun.execute(async { panic!("poisoned") });
        begun.execute(async move {
            let _ = waited_for.await;
            counted.fetch_add(1, Ordering::Relaxed);
        });
        assert!(streams.poll(&mut context), "one is done, in its way");
        assert!(!streams.poll(&mut context), "the other waits");
        answer.send(()).unwrap();
        assert!(streams.poll(&mut context));
        assert_eq!(answered.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn nothing_stays_of_what_is_begun_when_the_connection_ends() {
        let streams = Streams::default();
        let begun = streams.begun();
        let (held, itself, late) = (Arc::new(()), begun.clone(), Arc::new(()));
        let (of_it, of_late) = (held.clone(), late.clone());
        begun.execute(async move {
            std::future::pending::<()>().await;
            drop((itself, of_it));
        });
        drop(streams);
        begun.execute(async move { drop(of_late) });
        assert_eq!((Arc::strong_count(&held), Arc::strong_count(&late)), (1, 1));
    }

    #[test]
    fn a_request_that_begins_another_is_not_waited_for() {
        let mut streams = Streams::default();
        let begun = streams.begun();
        let (first, second) = (begun.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = second.clone();
        begun.execute(async move {
            first.execute(async move {
                counted.fetch_add(1, Ordering::Relaxed);
            });
        });
        assert!(streams.poll(&mut Context::from_waker(noop_waker_ref())));
        assert_eq!(second.load(Ordering::Relaxed), 1, "in the same turn");
    }
}

//! Events for people (`events.k8s.io`). Telling them never fails and never delays a reconciliation.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{News, Tone};
use crate::telemetry::Metrics;
use crate::telemetry::describe;

/// Events waiting to be published; further ones are dropped and counted.
const QUEUE: usize = 1_024;
/// How long publishing one may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Where reconciliations leave what people should know.
#[derive(Clone, Debug)]
pub(super) struct Events {
    queue: mpsc::Sender<(ObjectReference, News)>,
    metrics: Arc<Metrics>,
}

impl Events {
    /// Starts to publish until `token` is cancelled and what is queued by then is out.
    pub(super) fn start(
        client: Client,
        instance: String,
        metrics: Arc<Metrics>,
        token: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let recorder = Recorder::new(
            client,
            Reporter {
                controller: "claviger.dev/controller".to_owned(),
                instance: Some(instance),
            },
        );
        let task = tokio::spawn(publish_all(recorder, waiting, metrics.clone(), token));
        (Self { queue, metrics }, task)
    }

    /// Tells one thing about an object.
    pub(super) fn tell<K>(&self, object: &K, news: News)
    where
        K: Resource,
        K::DynamicType: Default,
    {
        let reference = object.object_ref(&K::DynamicType::default());
        if self.queue.try_send((reference, news)).is_err() {
            self.metrics.event_dropped();
            tracing::debug!("an event was dropped: too many are waiting");
        }
    }
}

async fn publish_all(
    recorder: Recorder,
    mut waiting: mpsc::Receiver<(ObjectReference, News)>,
    metrics: Arc<Metrics>,
    token: CancellationToken,
) {
    loop {
        let next = tokio::select! {
            biased;
            next = waiting.recv() => next,
            () = token.cancelled() => None,
        };
        let Some((object, news)) = next else { return };
        let type_ = match news.tone {
            Tone::Normal => EventType::Normal,
            Tone::Warning => EventType::Warning,
        };
        let event = Event {
            type_,
            action: news.reason.clone(),
            reason: news.reason,
            note: Some(news.note),
            secondary: None,
        };
        match tokio::time::timeout(LIMIT, recorder.publish(&event, &object)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                metrics.event_dropped();
                tracing::debug!(
                    error = describe(&error),
                    reason = event.reason,
                    "an event could not be published"
                );
            }
            Err(_) => metrics.event_dropped(),
        }
    }
}

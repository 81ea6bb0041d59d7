//! The parts of a gate that run beside its server.

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::error::RunError;

/// What runs beside the server. None of it may end before: a gate that follows nobody any more would go on to answer from what it knew,
/// and look well.
#[derive(Default)]
pub(super) struct Parts(FuturesUnordered<BoxFuture<'static, (&'static str, Result<(), RunError>)>>);

impl Parts {
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        part: impl Future<Output = Result<(), RunError>> + Send + 'static,
    ) {
        let task = tokio::spawn(part);
        self.0.push(Box::pin(async move {
            // It panicked; nobody aborts it.
            (name, task.await.unwrap_or(Err(RunError::Ended(name))))
        }));
    }

    /// Waits for `serving`, which is told to stop when a part has ended.
    pub(super) async fn beside(
        &mut self,
        serving: impl Future<Output = ()>,
        stopping: &CancellationToken,
    ) -> Result<(), RunError> {
        let mut serving = std::pin::pin!(serving);
        let (name, ended) = tokio::select! {
            () = &mut serving => return Ok(()),
            Some(ended) = self.0.next() => ended,
        };
        tracing::error!(
            part = name,
            "a part of the gate has ended: the requests under way are answered, then the gate ends"
        );
        stopping.cancel();
        serving.await;
        ended.and(Err(RunError::Ended(name)))
    }

    /// Waits until all have ended, as they were told to.
    pub(super) async fn end(mut self) -> Result<(), RunError> {
        let mut worst = Ok(());
        while let Some((_, ended)) = self.0.next().await {
            worst = worst.and(ended);
        }
        worst
    }
}

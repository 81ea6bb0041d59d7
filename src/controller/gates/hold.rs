//! Whether a key that is to be delivered is held back until gates know it.

use std::time::Duration;

use tokio::time::Instant;

use crate::api::{ApiKey, resource_version_number};
use crate::controller::context::Context;
use crate::controller::memory::{Held, Notes};
use crate::lifecycle::GateView;

/// Whether the gates know the announcement of a held key, as far as they are waited for: only before a key that replaces another is
/// sent for the first time.
pub(in crate::controller) fn know(context: &Context, apikey: &ApiKey, notes: &Notes) -> GateView {
    let replaces = apikey
        .status
        .as_ref()
        .is_some_and(|status| status.current().is_some());
    let announced = notes.held.as_ref().filter(|_| replaces).and_then(|held| {
        let version = held
            .unsent_at
            .as_deref()
            .and_then(resource_version_number)?;
        Some((version, held))
    });
    let Some((version, held)) = announced else {
        return GateView::Ready;
    };
    let left = left(context, held);
    if context.reports.know(apikey, version, Instant::now() + left) {
        return GateView::Ready;
    }
    if !left.is_zero() {
        return GateView::Behind;
    }
    tracing::info!(
        "a gate does not say that it knows the new version, and is not waited for any longer"
    );
    GateView::Ready
}

/// How long gates are still waited for with the delivery of a key.
pub(in crate::controller) fn left(context: &Context, held: &Held) -> Duration {
    context
        .limits
        .gate_wait
        .saturating_sub(held.since.elapsed())
}

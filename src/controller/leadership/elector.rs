//! The shell: carries decisions to the API server, one Lease at a time.

use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::{debug, error, info, warn};

use super::election::{claimed, released};
use super::{Decision, Fence, Leadership, LeadershipError, Record, Shutdown, Timing, evaluate};

/// One candidate for one Lease.
pub struct Elector {
    leases: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
    timing: Timing,
    fence: Fence,
    /// The Lease as last seen; `None` when it does not exist.
    lease: Option<Lease>,
    /// The last claim seen, kept even when the Lease was deleted: its holder may still act.
    record: Option<Record>,
    observed_at: Instant,
    /// Our last request was a write that succeeded: `lease` is what the server has, unless somebody meddles.
    fresh: bool,
    /// Until when our last successful claim lets us act.
    deadline: Instant,
    pauses: u64,
}

/// How a reign ends.
enum End {
    Drained,
    Lost(String),
}

impl Elector {
    /// A candidate named `identity` (pod name and a random suffix, new at each start of the process) for the Lease
    /// `namespace/name`.
    ///
    /// `client` must not retry (`default_retry = false`) nor be fenced.
    #[must_use]
    pub fn new(
        client: Client,
        namespace: impl Into<String>,
        name: impl Into<String>,
        identity: impl Into<String>,
        timing: Timing,
    ) -> Self {
        let namespace = namespace.into();
        Self {
            leases: Api::namespaced(client, &namespace),
            namespace,
            name: name.into(),
            identity: identity.into(),
            timing,
            fence: Fence::closed(),
            lease: None,
            record: None,
            observed_at: Instant::now(),
            fresh: false,
            deadline: Instant::now(),
            pauses: 0,
        }
    }

    /// The fence this candidate opens while it leads; put it before the client of everything that writes.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Campaigns, leads while it can, and gives the lease back when the work has stopped; see [`Shutdown`].
    ///
    /// Requests that fail, missing permissions included, are logged and tried again. Dropping the future closes the
    /// fence and leaves the lease to expire.
    ///
    /// # Errors
    /// [`LeadershipError::LeadershipLost`] when the lease could not be renewed in time, was taken, emptied or deleted.
    /// The fence is closed by then.
    pub async fn run(
        mut self,
        shutdown: Shutdown,
        state: watch::Sender<Leadership>,
    ) -> Result<(), LeadershipError> {
        state.send_replace(Leadership::Standby);
        if !self.campaign(&shutdown).await {
            return Ok(());
        }
        info!(lease = %self.lease_name(), identity = %self.identity, "leading");
        state.send_replace(Leadership::Leading);
        let end = self.lead(&shutdown).await;
        self.fence.close();
        match end {
            End::Drained => {
                self.release().await;
                state.send_replace(Leadership::Standby);
                Ok(())
            }
            End::Lost(reason) => {
                state.send_replace(Leadership::Lost);
                error!(lease = %self.lease_name(), identity = %self.identity, reason, "leadership lost");
                Err(LeadershipError::LeadershipLost {
                    lease: self.lease_name(),
                    reason,
                })
            }
        }
    }

    /// Tries until the lease is ours (true) or a shutdown is requested (false).
    ///
    /// A request under way is never dropped by a shutdown: it might take the lease for a process that is gone.
    async fn campaign(&mut self, shutdown: &Shutdown) -> bool {
        loop {
            if shutdown.requested.is_cancelled() || shutdown.drained.is_cancelled() {
                return false;
            }
            let retry = Instant::now() + self.pause();
            let wake = match self.attempt().await {
                // An answer that came too late (we were frozen) is a lease we may not act on yet.
                Ok(None) if self.fence.check().is_ok() => return true,
                Ok(None) => Instant::now(),
                Ok(Some(expiry)) => retry.min(expiry),
                Err(failure) if failure.is_conflict() => {
                    debug!(lease = %self.lease_name(), "another candidate was faster");
                    retry
                }
                Err(failure) => {
                    warn!(lease = %self.lease_name(), error = %failure, "cannot stand for election");
                    retry
                }
            };
            tokio::select! {
                biased;
                () = shutdown.requested.cancelled() => return false,
                () = shutdown.drained.cancelled() => return false,
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Looks, and takes the lease if it may: `None` when it is ours, else until when another holds it.
    async fn attempt(&mut self) -> Result<Option<Instant>, LeadershipError> {
        self.look().await?;
        match evaluate(
            self.record.as_ref(),
            self.observed_at,
            Instant::now(),
            &self.identity,
            &self.timing,
        ) {
            Decision::Wait(until) => Ok(Some(until)),
            Decision::Acquire | Decision::Renew => self.claim().await.map(|()| None),
        }
    }

    /// Renews until the work has stopped or the lease is lost.
    async fn lead(&mut self, shutdown: &Shutdown) -> End {
        let mut failure = None;
        let mut wake = Instant::now() + self.pause();
        loop {
            tokio::select! {
                biased;
                () = shutdown.drained.cancelled() => return End::Drained,
                () = sleep_until(wake.min(self.deadline)) => {}
            }
            if Instant::now() >= self.deadline {
                return End::Lost(late(failure.as_ref()));
            }
            wake = Instant::now() + self.pause();
            match timeout_at(self.deadline, self.renew()).await {
                Err(_) => return End::Lost(late(failure.as_ref())),
                Ok(Ok(None)) => failure = None,
                Ok(Ok(Some(reason))) => return End::Lost(reason),
                Ok(Err(cause)) => {
                    warn!(lease = %self.lease_name(), error = %cause, "cannot renew the lease yet");
                    failure = Some(cause);
                }
            }
        }
    }

    /// Renews once; `Some(why)` when the lease is no longer ours.
    ///
    /// After anything but a clear success it reads the Lease back, and goes on only if it names us. Reading extends
    /// nothing: others count from the last write.
    async fn renew(&mut self) -> Result<Option<String>, LeadershipError> {
        if self.fresh {
            match self.claim().await {
                Ok(()) => return Ok(None),
                Err(failure) => {
                    warn!(lease = %self.lease_name(), error = %failure, "renewal unclear, reading back");
                }
            }
        }
        self.look().await?;
        match self.usurper() {
            Some(reason) => Ok(Some(reason)),
            None => self.claim().await.map(|()| None),
        }
    }

    /// Why the Lease as last seen is not ours, if so.
    fn usurper(&self) -> Option<String> {
        let Some(lease) = &self.lease else {
            return Some("the lease was deleted".to_owned());
        };
        match Record::of(lease).holder {
            Some(holder) if holder == self.identity => None,
            Some(holder) => Some(format!("held by {holder}")),
            None => Some("the lease was emptied".to_owned()),
        }
    }

    /// Gives the lease back so that another need not wait; the fence is closed already.
    async fn release(&mut self) {
        for _ in 0..2 {
            if !self.fresh
                && let Err(failure) = self.look().await
            {
                warn!(lease = %self.lease_name(), error = %failure, "cannot look at the lease to release it");
                continue;
            }
            if let Some(reason) = self.usurper() {
                info!(lease = %self.lease_name(), reason, "nothing to release");
                return;
            }
            match self.write(released(self.spec(), Timestamp::now())).await {
                Ok(()) => {
                    info!(lease = %self.lease_name(), identity = %self.identity, "released");
                    return;
                }
                Err(failure) => {
                    warn!(lease = %self.lease_name(), error = %failure, "cannot release the lease");
                }
            }
        }
    }

    /// Writes our claim and, once it is stored, extends the fence from before it was sent.
    async fn claim(&mut self) -> Result<(), LeadershipError> {
        let spec = claimed(self.spec(), &self.identity, &self.timing, Timestamp::now());
        let sent = Instant::now();
        self.write(spec).await?;
        self.deadline = self.timing.may_act_until(sent);
        self.fence.extend(self.deadline);
        Ok(())
    }

    /// Creates the Lease, or replaces the version last seen.
    async fn write(&mut self, spec: LeaseSpec) -> Result<(), LeadershipError> {
        self.fresh = false;
        let post = PostParams::default();
        let stored = if let Some(seen) = &self.lease {
            let lease = Lease {
                metadata: seen.metadata.clone(),
                spec: Some(spec),
            };
            self.ask("update", self.leases.replace(&self.name, &post, &lease))
                .await?
        } else {
            let metadata = ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            };
            self.ask(
                "create",
                self.leases.create(
                    &post,
                    &Lease {
                        metadata,
                        spec: Some(spec),
                    },
                ),
            )
            .await?
        };
        self.remember(stored);
        self.fresh = true;
        Ok(())
    }

    async fn look(&mut self) -> Result<(), LeadershipError> {
        self.fresh = false;
        match self.ask("get", self.leases.get_opt(&self.name)).await? {
            Some(lease) => self.remember(lease),
            None => self.lease = None,
        }
        Ok(())
    }

    /// Notes what the server said, and the instant if the claim in it is new to us.
    fn remember(&mut self, lease: Lease) {
        let record = Record::of(&lease);
        if !self
            .record
            .as_ref()
            .is_some_and(|known| known.same_claim(&record))
        {
            self.observed_at = Instant::now();
        }
        self.record = Some(record);
        self.lease = Some(lease);
    }

    async fn ask<T>(
        &self,
        verb: &'static str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, LeadershipError> {
        let after = self.timing.request_timeout();
        match timeout(after, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => {
                Err(LeadershipError::Forbidden {
                    verb,
                    namespace: self.namespace.clone(),
                    name: self.name.clone(),
                    message: status.message,
                })
            }
            Ok(Err(source)) => Err(LeadershipError::Request {
                verb,
                lease: self.lease_name(),
                source,
            }),
            Err(_) => Err(LeadershipError::TimedOut {
                verb,
                lease: self.lease_name(),
                after,
            }),
        }
    }

    fn spec(&self) -> Option<&LeaseSpec> {
        self.lease.as_ref().and_then(|lease| lease.spec.as_ref())
    }

    fn lease_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// A retry period of our own, so that candidates started together do not knock together.
    fn pause(&mut self) -> Duration {
        self.pauses = self.pauses.wrapping_add(1);
        let mut hasher = DefaultHasher::new();
        (&self.identity, self.pauses).hash(&mut hasher);
        self.timing.jittered(hasher.finish())
    }
}

impl Drop for Elector {
    /// Nobody renews any more.
    fn drop(&mut self) {
        self.fence.close();
    }
}

fn late(last: Option<&LeadershipError>) -> String {
    match last {
        Some(failure) => format!("not renewed in time, last: {failure}"),
        None => "not renewed in time".to_owned(),
    }
}

#[cfg(test)]
mod tests;

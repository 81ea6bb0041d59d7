//! The controller from start to end.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use kube::client::ClientBuilder;
use kube::runtime::reflector;
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::sync::watch as signal;
use tokio_util::sync::CancellationToken;
use tower::timeout::TimeoutLayer;

use super::clock::Clock;
use super::cluster::ClusterObjects;
use super::context::{Context, Limits};
use super::events::Events;
use super::gates;
use super::gates::reports::Reports;
use super::health::State;
use super::leadership::{Elector, Fence, Leadership, LeadershipError, Shutdown, Timing};
use super::startup::{self, StartupError};
use super::watch::{self, ClusterWriters, Writers};
use crate::key::{MintError, OsRandom, random_hex_128};
use crate::lifecycle::Rules;
use crate::telemetry::{self, Metrics, RequestLayer, ServerClock, ServerError};

/// How long work that was begun may take when the process is told to stop.
const DRAIN: Duration = Duration::from_secs(20);
/// So much later than a request has its own end, every other one has: after that time, no answer has begun.
const ANSWERED: Duration = Duration::from_secs(5);
/// An answer that has begun goes on within this time. A watch lasts 290 seconds, and may show nothing all the while.
const LONGEST_SILENCE: Duration = Duration::from_secs(300);

/// What an installation chooses.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Only this namespace; `None` is the whole cluster.
    pub namespace: Option<String>,
    /// The namespace of the gates that are looked at; `None` is the whole cluster.
    pub gate_namespace: Option<String>,
    /// Whether roles, policies and namespaces, which are the cluster's own, are looked at.
    pub cluster_objects: bool,
    /// What holds for all keys.
    pub rules: Rules,
    /// Times and numbers.
    pub limits: Limits,
    /// The lease, or `None` for a process that is alone.
    pub lease: Option<LeaseSettings>,
    /// The name of this process in events and in the lease, such as its pod's.
    pub instance: String,
}

/// Where the leader is elected, and how.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// The namespace of the Lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its times.
    pub timing: Timing,
}

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The client could not be built from the configuration.
    #[error("the connection to the API server cannot be set up: {0}")]
    Client(#[source] Box<kube::Error>),
    /// It could not start.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// The lease was lost, or cannot be used.
    #[error(transparent)]
    Leadership(#[from] LeadershipError),
    /// The admin server failed.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// No name could be made for this process.
    #[error(transparent)]
    Random(#[from] MintError),
    /// A part of the process ended that should not.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// Runs until `token` is cancelled and what was begun is done, or until it cannot go on.
///
/// # Errors
/// [`RunError`] says why; the process should end with a non-zero code.
pub async fn run(
    settings: Settings,
    config: Config,
    clock: Arc<dyn Clock>,
    admin: TcpListener,
    token: CancellationToken,
) -> Result<(), RunError> {
    let metrics = Arc::new(Metrics::default());
    let server_clock = ServerClock::default();
    let state = Arc::new(State {
        metrics: metrics.clone(),
        context: OnceLock::new(),
        ready: OnceLock::new(),
        clock: clock.clone(),
    });
    let serving = CancellationToken::new();
    let server = tokio::spawn(telemetry::serve(admin, state.clone(), serving.clone()));

    let parts = Parts {
        settings,
        config,
        clock,
        metrics,
        server_clock,
        state,
    };
    let ended = parts.run(&token).await;
    serving.cancel();
    match (ended, server.await) {
        (Err(RunError::Startup(StartupError::Cancelled)), _) => Ok(()),
        (Err(error), _) => Err(error),
        (Ok(()), Ok(end)) => Ok(end?),
        (Ok(()), Err(_)) => Err(RunError::Ended("the admin server")),
    }
}

struct Parts {
    settings: Settings,
    config: Config,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    server_clock: ServerClock,
    state: Arc<State>,
}

impl Parts {
    async fn run(self, token: &CancellationToken) -> Result<(), RunError> {
        let plain = self.client(&Fence::open())?;
        let wanted = startup::Wanted {
            namespace: self.settings.namespace.as_deref(),
            cluster_objects: self.settings.cluster_objects,
            limit: self.settings.limits.request_timeout,
        };
        startup::check(&plain, &self.config, wanted, token).await?;
        let _ = self.state.ready.set(());
        let Some(lease) = &self.settings.lease else {
            self.metrics.leading(true);
            tracing::info!("working without leader election");
            let stop = token.child_token();
            self.work(plain, &stop).await;
            return if token.is_cancelled() {
                Ok(())
            } else {
                Err(RunError::Ended("the watches"))
            };
        };
        let identity = format!(
            "{}_{}",
            self.settings.instance,
            random_hex_128(&mut OsRandom)?
        );
        let elector = Elector::new(plain, &lease.namespace, &lease.name, identity, lease.timing);
        let fenced = self.client(&elector.fence())?;
        let shutdown = Shutdown::default();
        let (sender, mut leadership) = signal::channel(Leadership::Standby);
        let election = tokio::spawn(elector.run(shutdown.clone(), sender));
        self.lead(fenced, &mut leadership, &shutdown, token).await;
        shutdown.drained.cancel();
        match election.await {
            Ok(ended) => ended?,
            Err(_) => return Err(RunError::Ended("the election")),
        }
        if token.is_cancelled() {
            Ok(())
        } else {
            Err(RunError::Ended("the watches"))
        }
    }

    /// Waits to lead, works while it does, and stops at once when it does not any more.
    async fn lead(
        &self,
        client: Client,
        leadership: &mut signal::Receiver<Leadership>,
        shutdown: &Shutdown,
        token: &CancellationToken,
    ) {
        let led = tokio::select! {
            () = token.cancelled() => false,
            led = leadership.wait_for(|now| *now != Leadership::Standby) => led.is_ok_and(|now| *now == Leadership::Leading),
        };
        if led {
            self.metrics.leading(true);
            let stop = token.child_token();
            tokio::select! {
                () = self.work(client, &stop) => {}
                // Nothing is drained: the fence is closed, and what was under way is another's now.
                _ = leadership.wait_for(|now| *now != Leadership::Leading) => {}
            }
            self.metrics.leading(false);
        }
        shutdown.requested.cancel();
    }

    async fn work(&self, client: Client, stop: &CancellationToken) {
        let (apikeys, apikeys_writer) = reflector::store();
        let (secrets, secrets_writer) = reflector::store();
        let (cluster, cluster_writers) = if self.settings.cluster_objects {
            let (roles, roles_writer) = reflector::store();
            let (policies, policies_writer) = reflector::store();
            let (namespaces, namespaces_writer) = reflector::store();
            let writers = ClusterWriters {
                roles: roles_writer,
                policies: policies_writer,
                namespaces: namespaces_writer,
            };
            (
                Some(ClusterObjects {
                    roles,
                    policies,
                    namespaces,
                }),
                Some(writers),
            )
        } else {
            (None, None)
        };
        let telling = CancellationToken::new();
        let (events, publisher) = Events::start(
            client.clone(),
            self.settings.instance.clone(),
            self.metrics.clone(),
            telling.clone(),
        );
        let (reports, released) = Reports::new();
        let context = Arc::new(Context {
            client,
            secrets,
            cluster,
            shown: tokio::sync::OnceCell::new(),
            since: crate::api::whole_second(self.clock.now()),
            apikeys,
            events,
            metrics: self.metrics.clone(),
            memory: super::memory::Memory::default(),
            pending: super::context::Pending::default(),
            reports,
            clock: self.clock.clone(),
            server_clock: self.server_clock.clone(),
            rules: Arc::new(self.settings.rules.clone()),
            limits: self.settings.limits,
        });
        let _ = self.state.context.set(context.clone());
        let writers = Writers {
            apikeys: apikeys_writer,
            secrets: secrets_writer,
            cluster: cluster_writers,
        };
        let gates = Box::pin(gates::work::work(
            &context,
            self.settings.gate_namespace.as_deref(),
            stop,
        ));
        let keys = watch::work(
            context.clone(),
            writers,
            self.settings.namespace.as_deref(),
            released,
            stop.clone(),
        );
        let working = async { tokio::join!(keys, gates) };
        let overdue = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            _ = working => {}
            () = overdue => tracing::warn!("work that was begun is not done after {} s and is cut off", DRAIN.as_secs()),
        }
        telling.cancel();
        if tokio::time::timeout(Duration::from_secs(5), publisher)
            .await
            .is_err()
        {
            tracing::debug!("events that were waiting are dropped");
        }
    }

    fn client(&self, fence: &Fence) -> Result<Client, RunError> {
        let requests = RequestLayer::new(self.metrics.clone(), self.server_clock.clone());
        let mut config = self.config.clone();
        config.read_timeout = Some(LONGEST_SILENCE);
        config.reset_reader_on_write = true;
        let builder =
            ClientBuilder::try_from(config).map_err(|error| RunError::Client(Box::new(error)))?;
        // Lists and watches wait by themselves, and would wait for an answer for ever.
        let answered = TimeoutLayer::new(self.settings.limits.request_timeout + ANSWERED);
        Ok(builder
            .with_layer(&answered)
            .with_layer(&requests)
            .with_layer(&fence.layer())
            .build())
    }
}

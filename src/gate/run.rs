//! The gate from start to end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::client::ClientBuilder;
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::callers::{self, Callers, CallersError};
use super::desk::{AccessLog, Desk, wall_clock};
use super::feed::{Feed, Ledger, Timing};
use super::freshness::{Freshness, Watched};
use super::health::State;
use super::http::{ProxyCallers, router};
use super::index::{Holder, Writer};
use super::metrics::Metrics;
use super::report::{Identity, Reporter, Subject, Uses};
use super::route::Routes;
use super::server::{self, Certificates, Counters, Listener, TlsError, TlsFiles, connections_within, raise_open_files};
use crate::telemetry;

/// What an installation chooses.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Only this namespace's ApiKeys; `None` is the whole cluster.
    pub namespace: Option<String>,
    /// Whether ApiKeyRoles, which are the cluster's own, are watched. Without, roles grant nothing.
    pub cluster_objects: bool,
    /// Where plain HTTP is served.
    pub listen: Option<SocketAddr>,
    /// Where HTTPS is served, and with what.
    pub listen_tls: Option<(SocketAddr, TlsFiles)>,
    /// What one peer may cost.
    pub limits: server::Limits,
    /// Who may use the verify API.
    pub callers: callers::Settings,
    /// Who may ask on behalf of a proxy.
    pub proxy_callers: ProxyCallers,
    /// Whether a route may name no audience.
    pub routes_without_audience: bool,
    /// How long a silent API server is lived with; `None` is for ever.
    pub max_staleness: Option<Duration>,
    /// How long the API server is waited for.
    pub timing: Timing,
    /// What is written down.
    pub access_log: AccessLog,
    /// The `Gate` object to keep, if any.
    pub report: Option<Identity>,
}

/// Why the gate ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The client could not be built from the configuration.
    #[error("the connection to the API server cannot be set up: {0}")]
    Client(#[source] Box<kube::Error>),
    /// Nobody could ask.
    #[error("nothing is listened on: set --listen, --listen-tls, or both")]
    NoListener,
    /// A client certificate is asked of somebody, and none is verified.
    #[error("client certificates (mtls) need --listen-tls with --tls-client-ca")]
    NoClientCa,
    /// A watch would count as dead before it ends.
    #[error(
        "--max-staleness must be more than --watch-timeout and five seconds: in a quiet cluster a watch shows that it lives when it ends"
    )]
    Staleness,
    /// An address cannot be had.
    #[error(transparent)]
    Listen(#[from] server::ServerError),
    /// A socket failed.
    #[error("a socket failed")]
    Socket(#[from] std::io::Error),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The guard of the verify API cannot be set up.
    #[error(transparent)]
    Callers(#[from] CallersError),
    /// The admin server failed.
    #[error(transparent)]
    Admin(#[from] telemetry::ServerError),
    /// A part of the process ended that should not.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// Serves until `token` is cancelled and the requests under way are answered.
///
/// # Errors
/// [`RunError`] says why; the process should end with a non-zero code.
pub async fn run(settings: Settings, config: Config, admin: TcpListener, token: CancellationToken) -> Result<(), RunError> {
    settings.check()?;
    let client = ClientBuilder::try_from(config).map_err(|error| RunError::Client(Box::new(error)))?.build();
    let counters = Arc::new(Counters::default());
    let uses = Arc::new(Uses::default());
    let metrics = Arc::new(Metrics::new(&counters, &uses));
    let freshness = Arc::new(Freshness::new(settings.cluster_objects, settings.max_staleness));
    let writer = Writer::default();
    let index = writer.published();
    let ledger = Arc::new(Ledger::new(writer, freshness.clone(), metrics.clone(), uses.clone()));
    let noting = uses.clone();
    let desk = Arc::new(Desk {
        index: index.clone(),
        freshness: freshness.clone(),
        routes: Routes::new(settings.routes_without_audience),
        metrics: metrics.clone(),
        clock: wall_clock,
        used: Box::new(move |holder, now| note(&noting, holder, now)),
        access_log: settings.access_log,
    });
    let state = Arc::new(State { index, freshness, metrics, ledger: ledger.clone(), stopping: token.clone() });

    // Everything that can be wrong with the configuration shows before anything is served.
    let callers = Callers::new(client.clone(), settings.callers.clone())?;
    let (listeners, certificates) = settings.listeners().await?;
    let mut limits = settings.limits;
    limits.connections = connections_within(limits.connections, raise_open_files());

    // The admin port and the watches go on while the last requests are answered.
    let background = CancellationToken::new();
    let tasks = TaskTracker::new();
    let admin = tasks.spawn(telemetry::serve(admin, state.clone(), background.clone()));
    if let Some(certificates) = certificates {
        tasks.spawn(certificates.keep_current(server::RELOAD, background.clone()));
    }
    let watched = if settings.cluster_objects { &[Watched::ApiKeys, Watched::Roles][..] } else { &[Watched::ApiKeys] };
    for watched in watched {
        let feed = Feed::new(client.clone(), *watched, settings.namespace.as_deref(), ledger.clone(), settings.timing);
        tasks.spawn(feed.run(background.clone()));
    }
    if let Some(identity) = settings.report.clone() {
        let reporter = reporter(&client, identity, &settings, &state, &uses);
        tasks.spawn(reporter.run(background.clone()));
    }
    let router = router(desk, callers, settings.proxy_callers);
    server::serve(listeners, router, limits, counters, token.clone()).await;
    background.cancel();
    tasks.close();
    tasks.wait().await;
    match admin.await {
        Ok(ended) => ended?,
        Err(_) => return Err(RunError::Ended("the admin server")),
    }
    if token.is_cancelled() { Ok(()) } else { Err(RunError::Ended("the server")) }
}

impl Settings {
    fn check(&self) -> Result<(), RunError> {
        let verifies_clients = self.listen_tls.as_ref().is_some_and(|(_, files)| files.client_ca.is_some());
        let asks_for_certificates =
            self.proxy_callers == ProxyCallers::Mtls || self.callers.methods.contains(&callers::Method::Mtls);
        if self.listen.is_none() && self.listen_tls.is_none() {
            return Err(RunError::NoListener);
        }
        if asks_for_certificates && !verifies_clients {
            return Err(RunError::NoClientCa);
        }
        if self.max_staleness.is_some_and(|max| max <= self.timing.watch + super::feed::GRACE) {
            return Err(RunError::Staleness);
        }
        Ok(())
    }

    async fn listeners(&self) -> Result<(Vec<Listener>, Option<Arc<Certificates>>), RunError> {
        let (mut listeners, mut kept) = (Vec::new(), None);
        if let Some(address) = self.listen {
            let listener = Listener::plain(address).await?;
            tracing::info!(plain_address = %listener.address()?, "serving plain HTTP");
            listeners.push(listener);
        }
        if let Some((address, files)) = &self.listen_tls {
            let certificates = Arc::new(Certificates::load(files.clone())?);
            let listener = Listener::tls(*address, certificates.clone()).await?;
            tracing::info!(tls_address = %listener.address()?, "serving HTTPS");
            listeners.push(listener);
            kept = Some(certificates);
        }
        Ok((listeners, kept))
    }
}

fn note(uses: &Uses, holder: &Holder, now: i64) {
    let entry = holder.entry();
    uses.record(entry.noted(), now, || Subject {
        namespace: entry.profile().namespace.to_string(),
        name: entry.name().to_owned(),
        uid: entry.uid().to_string(),
    });
}

fn reporter(client: &Client, identity: Identity, settings: &Settings, state: &Arc<State>, uses: &Arc<Uses>) -> Reporter {
    let state = state.clone();
    Reporter::new(client.clone(), identity, settings.namespace.clone(), uses.clone(), move || state.facts())
}

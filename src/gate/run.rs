//! The gate from start to end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::util::MapResponseLayer;

use super::access_log::AccessLog;
use super::callers::{self, Callers};
use super::desk::{Desk, wall_clock};
use super::error::RunError;
use super::freshness::Freshness;
use super::health::{self, State};
use super::http::{ProxyCallers, router};
use super::index::{Holder, Writer};
use super::index_updater::{self, IndexHandler, IndexUpdater};
use super::metrics::Metrics;
use super::parts::Parts;
use super::report::{Identity, Reporter, Subject, Uses};
use super::route::Routes;
use super::server::{self, Certificates, Counters, Listener, TlsFiles};
use super::shown::{ShownApiKey, ShownRole};
use crate::telemetry::{self, ServerClock};
use crate::watch::{GRACE, Handler, Timing, Watcher};

/// How long the first report is waited for. A gate that cannot report serves all the same.
const FIRST_REPORT: Duration = Duration::from_secs(2);

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
    /// The bounds of the server.
    pub limits: server::Limits,
    /// How many connections are served at once; `None`: as many as the memory limit allows.
    pub max_connections: Option<u32>,
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

/// Serves until `token` is cancelled and the requests under way are answered.
///
/// # Errors
/// [`RunError`] says why; the process should end with a non-zero code.
pub async fn run(
    settings: Settings,
    config: Config,
    admin: TcpListener,
    token: CancellationToken,
) -> Result<(), RunError> {
    settings.check()?;
    let server_clock = ServerClock::default();
    let client = client(config, server_clock.clone())?;
    let counters = Arc::new(Counters::default());
    let uses = Arc::new(Uses::default());
    let metrics = Arc::new(Metrics::new(&counters, &uses));
    let freshness = Arc::new(Freshness::new(
        settings.cluster_objects,
        settings.max_staleness,
    ));
    let stopping = token.child_token();
    let writer = Writer::default();
    let index = writer.published();
    let updater = Arc::new(IndexUpdater::new(
        writer,
        freshness.clone(),
        metrics.clone(),
        uses.clone(),
    ));
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
    let state = Arc::new(State {
        index,
        freshness,
        metrics,
        updater: updater.clone(),
        server_clock,
        stopping: stopping.clone(),
    });

    // Everything that can be wrong with the configuration shows before anything is served.
    let callers = Callers::new(client.clone(), settings.callers.clone())?;
    let (listeners, certificates) = settings.listeners().await?;
    let limits = settings.limits.with_connections(settings.max_connections);

    // The admin port and the watches go on while the last requests are answered.
    let background = CancellationToken::new();
    let mut parts = Parts::default();
    let admin = telemetry::serve(admin, state.clone(), background.clone());
    parts.spawn("the admin server", async { Ok(admin.await?) });
    if let Some(certificates) = certificates {
        let kept = certificates.keep_current(server::RELOAD, background.clone());
        parts.spawn("the reading of certificates", async {
            kept.await;
            Ok(())
        });
    }
    let (tasks, reported) = (TaskTracker::new(), CancellationToken::new());
    tasks.spawn(health::tell(state.clone(), background.clone()));
    if let Some(identity) = settings.report.clone() {
        // No verdict depends on it, so that its end is no reason to end. The controller tells that the gate is silent.
        let telling = reporter(&client, identity, &settings, &state, &uses);
        tasks.spawn(telling.run(background.clone(), reported.clone()));
    } else {
        reported.cancel();
    }
    let apikeys = Watcher::new(
        client.clone(),
        index_updater::apikeys(settings.namespace.as_deref()),
        IndexHandler::<ShownApiKey>::new(updater.clone()),
        settings.timing,
    );
    let apikeys = watch_after(&reported, &background, apikeys);
    parts.spawn("the watch of ApiKeys", apikeys);
    if settings.cluster_objects {
        let handler = IndexHandler::<ShownRole>::new(updater);
        let (collection, timing) = (index_updater::roles(), settings.timing);
        let roles = Watcher::new(client.clone(), collection, handler, timing);
        parts.spawn(
            "the watch of ApiKeyRoles",
            watch_after(&reported, &background, roles),
        );
    }
    // Anybody may ask there: what the API server said stays at the admin port.
    let (fresh, ending) = (state.freshness.clone(), stopping.clone());
    let ready = Arc::new(move || match fresh.check() {
        _ if ending.is_cancelled() => Err("stopping".to_owned()),
        checked => checked.map_err(|unable| unable.to_string()),
    });
    let router = router(desk, callers, settings.proxy_callers, ready);
    let served = parts
        .beside(
            server::serve(listeners, router, limits, counters, stopping.clone()),
            &stopping,
        )
        .await;
    background.cancel();
    tasks.close();
    tasks.wait().await;
    let ended = parts.end().await;
    served.and(ended)?;
    if token.is_cancelled() {
        Ok(())
    } else {
        Err(RunError::Ended("the server"))
    }
}

/// Watches once the controller knows of this gate: a version that is announced after the first list
/// then waits for the gate, and one that was announced before is in the list.
fn watch_after<H: Handler + 'static>(
    reported: &CancellationToken,
    background: &CancellationToken,
    watcher: Watcher<H>,
) -> impl Future<Output = Result<(), RunError>> + Send + use<H> {
    let (reported, background) = (reported.clone(), background.clone());
    async move {
        let reported = tokio::time::timeout(FIRST_REPORT, reported.cancelled());
        if background.run_until_cancelled(reported).await.is_some() {
            watcher.run(background).await;
        }
        Ok(())
    }
}

fn client(config: Config, clock: ServerClock) -> Result<Client, RunError> {
    let builder =
        ClientBuilder::try_from(config).map_err(|error| RunError::Client(Box::new(error)))?;
    let hear = move |answer: Response<_>| {
        clock.hear(answer.headers());
        answer
    };
    Ok(builder.with_layer(&MapResponseLayer::new(hear)).build())
}

impl Settings {
    fn check(&self) -> Result<(), RunError> {
        let verifies_clients = self
            .listen_tls
            .as_ref()
            .is_some_and(|(_, files)| files.client_ca.is_some());
        let asks_for_certificates = self.proxy_callers == ProxyCallers::Mtls
            || self.callers.methods.contains(&callers::Method::Mtls);
        if self.listen.is_none() && self.listen_tls.is_none() {
            return Err(RunError::NoListener);
        }
        if asks_for_certificates && !verifies_clients {
            return Err(RunError::NoClientCa);
        }
        if self
            .max_staleness
            .is_some_and(|max| max <= self.timing.watch + GRACE)
        {
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
        namespace: entry.profile().namespace().to_owned(),
        name: entry.name().to_owned(),
        uid: entry.uid().to_string(),
    });
}

fn reporter(
    client: &Client,
    identity: Identity,
    settings: &Settings,
    state: &Arc<State>,
    uses: &Arc<Uses>,
) -> Reporter {
    let (moved, state) = (state.updater.moved(), state.clone());
    Reporter::new(
        client.clone(),
        identity,
        settings.namespace.clone(),
        uses.clone(),
        move || state.facts(),
        moved,
    )
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::any;

    use super::*;

    fn settings() -> Settings {
        Settings {
            namespace: None,
            cluster_objects: false,
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            listen_tls: None,
            limits: server::Limits::default(),
            max_connections: None,
            callers: callers::Settings {
                methods: vec![callers::Method::None],
                ..callers::Settings::default()
            },
            proxy_callers: ProxyCallers::None,
            routes_without_audience: false,
            max_staleness: None,
            timing: Timing {
                watch: Duration::from_secs(30),
                request: Duration::from_secs(30),
            },
            access_log: AccessLog::Off,
            report: None,
        }
    }

    /// It would go on with what it knew, and answer as if all were well.
    #[tokio::test]
    async fn a_gate_of_which_a_watch_has_died_ends() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let list = r#"{"metadata":{"resourceVersion":"10"},"items":[]}"#;
        tokio::spawn(
            axum::serve(listener, Router::new().fallback(any(async move || list))).into_future(),
        );

        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = settings();
        // No clock goes so far: the watcher panics.
        settings.timing.watch = Duration::MAX;
        let run = run(
            settings,
            Config::new(url.parse().unwrap()),
            admin,
            CancellationToken::new(),
        );
        let ended = tokio::time::timeout(Duration::from_secs(20), run)
            .await
            .expect("it goes on");
        assert!(
            matches!(ended, Err(RunError::Ended("the watch of ApiKeys"))),
            "{ended:?}"
        );
    }

    /// A key that is rotated after the list is given out when this gate says that it knows it, and nobody waits for a gate that is unknown.
    #[tokio::test]
    async fn a_gate_tells_that_it_is_there_before_it_lists_and_lists_also_where_nobody_takes_that()
    {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (asked, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let let_go = Arc::new(tokio::sync::Semaphore::new(0));
        let going = let_go.clone();
        let answer = async move |method: http::Method, uri: http::Uri| {
            let _ = asked.send(format!("{method} {}", uri.path()));
            if method == http::Method::PATCH {
                let _ = going.acquire().await;
            }
            http::StatusCode::SERVICE_UNAVAILABLE
        };
        tokio::spawn(axum::serve(listener, Router::new().fallback(any(answer))).into_future());

        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = settings();
        settings.report = Some(Identity {
            name: "gate-a".to_owned(),
            namespace: "ns".to_owned(),
            pod_uid: None,
        });
        let token = CancellationToken::new();
        let mut config = Config::new(url.parse().unwrap());
        config.default_retry = false;
        let running = tokio::spawn(run(settings, config, admin, token.clone()));
        assert_eq!(
            heard.recv().await.unwrap(),
            "PATCH /apis/claviger.dev/v1alpha1/namespaces/ns/gates/gate-a"
        );
        let early = tokio::time::timeout(Duration::from_millis(300), heard.recv()).await;
        assert!(early.is_err(), "{early:?}");
        let_go.add_permits(1);
        assert_eq!(
            heard.recv().await.unwrap(),
            "GET /apis/claviger.dev/v1alpha1/apikeys"
        );
        token.cancel();
        assert!(running.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn what_ends_early_ends_the_gate_once_the_requests_under_way_are_answered() {
        for part in [Ok(()), Err(RunError::NoListener)] {
            let wanted = if part.is_ok() {
                "the part ended unexpectedly".to_owned()
            } else {
                RunError::NoListener.to_string()
            };
            let (mut parts, stopping, background) = (
                Parts::default(),
                CancellationToken::new(),
                CancellationToken::new(),
            );
            parts.spawn("the part", async { part });
            let other = background.clone();
            parts.spawn("another", async move {
                other.cancelled().await;
                Ok(())
            });
            // It ends only when it is told to.
            let served = parts.beside(stopping.cancelled(), &stopping).await;
            assert_eq!(served.unwrap_err().to_string(), wanted);
            background.cancel();
            assert!(parts.end().await.is_ok());
        }
    }

    #[tokio::test]
    async fn who_is_told_to_stop_ends_well() {
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let token = CancellationToken::new();
        token.cancel();
        assert!(
            run(
                settings(),
                Config::new("http://127.0.0.1:1".parse().unwrap()),
                admin,
                token
            )
            .await
            .is_ok()
        );
    }
}

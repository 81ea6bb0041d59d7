//! The controller in this process, for stories that need a clock of their own. The product has no switch for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use claviger::controller::{self, Clock, Limits, RunError, Settings};
use claviger::lifecycle::Rules;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::cluster::runtime;
use super::proxy::Proxy;
use super::stage::Stage;

/// A clock that shows what it is told to.
#[derive(Clone)]
pub(crate) struct Hands(Arc<Mutex<Shown>>);

#[derive(Clone, Copy)]
enum Shown {
    /// It stands.
    Still(Timestamp),
    /// It runs, this far from the machine's.
    Running(SignedDuration),
}

impl Hands {
    /// A clock that shows the right time.
    pub(crate) fn right() -> Self {
        Self(Arc::new(Mutex::new(Shown::Running(SignedDuration::ZERO))))
    }

    /// Stops it at a moment.
    pub(crate) fn stand_at(&self, moment: Timestamp) {
        *self.0.lock().expect("no story panicked here") = Shown::Still(moment);
    }

    /// Lets it run this far from the right time.
    pub(crate) fn run_ahead(&self, by: SignedDuration) {
        *self.0.lock().expect("no story panicked here") = Shown::Running(by);
    }
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        match *self.0.lock().expect("no story panicked here") {
            Shown::Still(moment) => moment,
            Shown::Running(by) => Timestamp::now() + by,
        }
    }
}

/// A controller in this process. Stopped when dropped.
pub(crate) struct InProcess {
    token: CancellationToken,
    task: Option<JoinHandle<Result<(), RunError>>>,
}

impl InProcess {
    /// Starts one for a stage, through a proxy, with a clock.
    pub(crate) fn start(stage: &Stage, proxy: &Proxy, clock: impl Clock) -> Self {
        let settings = Settings {
            namespace: Some(stage.namespace.clone()),
            gate_namespace: Some(stage.namespace.clone()),
            cluster_objects: true,
            rules: Rules {
                finalizer: true,
                principal_domain: "claviger.local".to_owned(),
                hold_minting: false,
            },
            limits: Limits {
                announce_grace: Duration::from_secs(3),
                request_timeout: Duration::from_secs(2),
                max_backoff: Duration::from_secs(2),
                ..Limits::default()
            },
            lease: None,
            instance: "in-process".to_owned(),
        };
        let config = stage.cluster.config_through(proxy);
        let token = CancellationToken::new();
        let stop = token.clone();
        let task = runtime().spawn(async move {
            let admin = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            controller::run(settings, config, Arc::new(clock), admin, stop).await
        });
        Self {
            token,
            task: Some(task),
        }
    }

    /// Stops it, and says how it ended.
    pub(crate) fn stop(mut self) -> Result<(), RunError> {
        self.token.cancel();
        let task = self.task.take().expect("it runs");
        runtime().block_on(task).expect("it does not panic")
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

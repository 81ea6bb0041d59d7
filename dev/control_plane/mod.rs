//! A throw-away Kubernetes control plane: the real etcd, kube-apiserver and kube-controller-manager.
//!
//! It needs no container and no privileges, starts in about four seconds, shares nothing with its neighbours (several
//! run side by side), and leaves nothing behind, even when its owner is killed. There are no nodes: no pod ever runs.
//!
//! Everything here blocks; it uses the standard library and makes its certificates with `rcgen`.
//!
//! - [`binaries`] finds the executables or has them built
//! - [`keeper`] runs them and cleans up after them
//! - [`components`] has their command lines, [`readiness`] tells when they are up
//! - [`certificates`], [`kubeconfig`] and [`ports`] are what they need

#![allow(
    dead_code,
    reason = "each program that includes this module needs another part of it"
)]

mod binaries;
mod certificates;
mod components;
mod error;
mod keeper;
mod kubeconfig;
mod ports;
mod readiness;

use std::fs;
use std::path::{Path, PathBuf};

use self::binaries::Binaries;
use self::certificates::Authority;
use self::components::{AUDIT_POLICY, Ports, files};
use self::keeper::Keeper;
use self::kubeconfig::Credentials;

pub(crate) use self::components::Component;
pub(crate) use self::error::Error;
pub(crate) use self::kubeconfig::Auth;

/// How often a start is tried when another process takes a port between its choice and its use.
const STARTS: usize = 3;

/// What may differ from one control plane to the next.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Whether the API server writes an audit log (level `Metadata`, a line of JSON an event); see
    /// [`ControlPlane::audit_log`].
    pub(crate) audit: bool,
    /// More arguments for kube-apiserver, such as `--feature-gates=...`; they win over the usual ones. No line breaks.
    pub(crate) extra_apiserver_args: Vec<String>,
}

/// A running control plane. Dropping it ends its processes and removes its directory.
///
/// All its methods take `&self`, so that it can be shared by threads.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    keeper: Keeper,
    binaries: Binaries,
    authority: Authority,
    ports: Ports,
    url: String,
    etcd_url: String,
    kubeconfig: PathBuf,
}

impl ControlPlane {
    /// Starts a control plane and returns when it is ready: after about 4 s, or after some minutes where the
    /// components have to be built first.
    ///
    /// # Errors
    /// [`Error::Binaries`] if the components can neither be found nor built; [`Error::Ended`] or [`Error::NotReady`]
    /// (after 90 s), with the end of its log, if a component does not come up; [`Error::PortTaken`] if even a third
    /// choice of ports is taken by others.
    pub(crate) fn start(options: &Options) -> Result<Self, Error> {
        let mut tries = 1;
        loop {
            match Self::start_once(options) {
                Err(Error::PortTaken { .. }) if tries < STARTS => tries += 1,
                outcome => return outcome,
            }
        }
    }

    fn start_once(options: &Options) -> Result<Self, Error> {
        let binaries = Binaries::find()?;
        let keeper = Keeper::start()?;
        let authority = Authority::new()?;
        let [etcd, etcd_peer, api_server] = ports::pick()?;
        let ports = Ports {
            etcd,
            etcd_peer,
            api_server,
        };
        let control_plane = Self {
            kubeconfig: keeper.directory().join("admin.kubeconfig"),
            url: ports.api_server_url(),
            etcd_url: ports.etcd_url(),
            keeper,
            binaries,
            authority,
            ports,
        };
        control_plane.write_files()?;
        control_plane.run_components(options)?;
        Ok(control_plane)
    }

    fn write_files(&self) -> Result<(), Error> {
        let server = self.authority.server()?;
        let (token_key, token_public_key) = certificates::token_signing_key()?;
        self.write(files::AUTHORITY, &self.authority.certificate)?;
        self.write(files::SERVER_CERTIFICATE, &server.certificate)?;
        self.write(files::SERVER_KEY, &server.key)?;
        self.write(files::TOKEN_KEY, &token_key)?;
        self.write(files::TOKEN_PUBLIC_KEY, &token_public_key)?;
        self.write(files::AUDIT_POLICY, AUDIT_POLICY)?;
        // Both may do everything; their names tell them apart in the audit log.
        for (name, user) in [
            ("admin", "admin"),
            ("kube-controller-manager", "system:kube-controller-manager"),
        ] {
            let groups = vec!["system:masters".to_owned()];
            self.write_kubeconfig(
                name,
                &self.url,
                Auth::ClientCert {
                    user: user.to_owned(),
                    groups,
                },
            )?;
        }
        Ok(())
    }

    fn run_components(&self, options: &Options) -> Result<(), Error> {
        let directory = self.dir();
        self.run(Component::Etcd, components::etcd(directory, self.ports))?;
        readiness::wait_for(Component::Etcd, &self.keeper, || {
            readiness::etcd(self.ports.etcd)
        })?;

        let extra = &options.extra_apiserver_args;
        self.run(
            Component::ApiServer,
            components::api_server(directory, self.ports, options.audit, extra),
        )?;
        self.wait_for_api_server()?;

        self.run(
            Component::ControllerManager,
            components::controller_manager(directory),
        )?;
        readiness::wait_for(Component::ControllerManager, &self.keeper, || {
            readiness::controller_manager(self.kubectl(), &self.kubeconfig)
        })
    }

    fn run(&self, component: Component, arguments: Vec<String>) -> Result<(), Error> {
        let mut command = vec![self.binaries.of(component.name()).display().to_string()];
        command.extend(arguments);
        self.keeper.run(component.name(), &command)
    }

    fn wait_for_api_server(&self) -> Result<(), Error> {
        readiness::wait_for(Component::ApiServer, &self.keeper, || {
            readiness::api_server(self.ports.api_server, self.kubectl(), &self.kubeconfig)
        })
    }

    fn write(&self, name: &str, contents: &str) -> Result<PathBuf, Error> {
        let path = self.dir().join(name);
        fs::write(&path, contents).map_err(Error::file(&path))?;
        Ok(path)
    }
}

/// Where things are.
impl ControlPlane {
    /// The directory with everything that belongs to this control plane, such as a `<component>.log` each; only this
    /// user may enter it. It goes with the control plane.
    pub(crate) fn dir(&self) -> &Path {
        self.keeper.directory()
    }

    /// The API server: `https://127.0.0.1:PORT`. It answers nobody who does not say who they are.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// etcd's client endpoint: `http://127.0.0.1:PORT`, open to everybody on this machine. Nothing is ever compacted.
    pub(crate) fn etcd_url(&self) -> &str {
        &self.etcd_url
    }

    /// The certificate, in PEM, that vouches for the API server.
    pub(crate) fn ca_pem(&self) -> &str {
        &self.authority.certificate
    }

    /// A kubeconfig whose user (`admin`, of `system:masters`) may do everything; it refers to no other file.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The audit log; there is one only with [`Options::audit`]. An event stands there before its request is answered.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.dir().join(files::AUDIT_LOG)
    }

    /// A `kubectl` that works with this control plane.
    pub(crate) fn kubectl(&self) -> &Path {
        &self.binaries.kubectl
    }

    /// A `helm` 4 that works with this control plane.
    pub(crate) fn helm(&self) -> &Path {
        &self.binaries.helm
    }

    /// Writes `NAME.kubeconfig` into the directory, for a client that reaches the API server at `server_url` (which may
    /// be a proxy before it) and proves itself by `auth`. An older file of that name is replaced.
    ///
    /// # Errors
    /// [`Error::TooManyGroups`] for more than two groups; [`Error::Certificate`]; [`Error::File`].
    pub(crate) fn write_kubeconfig(
        &self,
        name: &str,
        server_url: &str,
        auth: Auth,
    ) -> Result<PathBuf, Error> {
        let credentials = match auth {
            Auth::ClientCert { user, groups } => {
                Credentials::Identity(self.authority.client(&user, &groups)?)
            }
            Auth::Token(token) => Credentials::Token(token),
        };
        let text = kubeconfig::render(server_url, &self.authority.certificate, &credentials);
        self.write(&format!("{name}.kubeconfig"), &text)
    }
}

/// Other programs that live and die with it, such as a controller. A name is one of `a-z`, `0-9` and `-`.
impl ControlPlane {
    /// Starts a program that is killed when the control plane ends, however that ends. Started again under the same name,
    /// it goes on with the same log.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Refused`] if one of that name runs already.
    pub(crate) fn run_guest(&self, name: &str, command: &[String]) -> Result<(), Error> {
        self.keeper.run(name, command)
    }

    /// Asks a guest to end, and kills it if it has not within 5 s.
    ///
    /// # Errors
    /// [`Error::Refused`] if it does not run.
    pub(crate) fn stop_guest(&self, name: &str) -> Result<(), Error> {
        self.keeper.order("stop", name)
    }

    /// Whether a guest runs.
    ///
    /// # Errors
    /// [`Error::KeeperGone`].
    pub(crate) fn guest_runs(&self, name: &str) -> Result<bool, Error> {
        self.keeper.runs(name)
    }

    /// The process ID of a guest, if it was started.
    pub(crate) fn guest_pid(&self, name: &str) -> Option<u32> {
        fs::read_to_string(self.dir().join(format!("{name}.pid")))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// What a guest has written so far.
    pub(crate) fn guest_log(&self, name: &str) -> String {
        self.keeper.log(name)
    }
}

/// What may befall it.
impl ControlPlane {
    /// Ends the API server as an upgrade would: it is asked to, and killed if it has not ended within 5 s.
    ///
    /// # Errors
    /// [`Error::Refused`] if it does not run.
    pub(crate) fn stop_api_server(&self) -> Result<(), Error> {
        self.keeper.order("stop", Component::ApiServer.name())
    }

    /// Ends the API server as a crash would.
    ///
    /// # Errors
    /// [`Error::Refused`] if it does not run.
    pub(crate) fn kill_api_server(&self) -> Result<(), Error> {
        self.keeper.order("kill", Component::ApiServer.name())
    }

    /// Starts the API server again, at the same port and with the same data, and returns when it is ready (2 to 3 s).
    ///
    /// # Errors
    /// [`Error::Refused`] if it runs already; [`Error::PortTaken`], [`Error::Ended`] or [`Error::NotReady`] (after
    /// 90 s) if it does not come up.
    pub(crate) fn start_api_server(&self) -> Result<(), Error> {
        self.keeper.order("start", Component::ApiServer.name())?;
        self.wait_for_api_server()
    }

    /// Starts the controller manager anew and returns when it collects garbage (1 to 2 s).
    ///
    /// The garbage collector looks for new resources every 30 s only: after a `CustomResourceDefinition` was made,
    /// this saves waiting until it acts on the owner references to its objects.
    ///
    /// # Errors
    /// [`Error::Refused`] if it does not run; [`Error::Ended`] or [`Error::NotReady`] (after 90 s) if it does not come
    /// up.
    pub(crate) fn restart_controller_manager(&self) -> Result<(), Error> {
        let component = Component::ControllerManager;
        let begin = self.keeper.log(component.name()).len();
        self.keeper.order("kill", component.name())?;
        self.keeper.order("start", component.name())?;
        readiness::wait_for(component, &self.keeper, || {
            readiness::garbage_collector(
                self.keeper
                    .log(component.name())
                    .get(begin..)
                    .unwrap_or_default(),
            )
        })
    }

    /// Stops a component from doing anything, without ending it: its connections stay open and silent.
    ///
    /// # Errors
    /// [`Error::Refused`] if it does not run.
    pub(crate) fn pause(&self, component: Component) -> Result<(), Error> {
        self.keeper.order("pause", component.name())
    }

    /// Lets a paused component go on.
    ///
    /// # Errors
    /// [`Error::Refused`] if it does not run.
    pub(crate) fn resume(&self, component: Component) -> Result<(), Error> {
        self.keeper.order("resume", component.name())
    }
}

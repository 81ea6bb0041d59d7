//! The harness behind the stories: a shared cluster, rooms in it, controllers, and what is checked in all of them.
//!
//! - [`cluster`]: a control plane with Claviger's definitions and rights in it
//! - [`asker`]: asks again and again over one connection
//! - [`admission`]: the admission policies that the chart installs
//! - [`stage`]: a namespace for one story, and what a person does and sees in it
//! - [`many`]: many ApiKeys at once
//! - [`memory_group`]: a bound on the memory of a process
//! - [`operator`]: the controller as a process, with its logs and metrics
//! - [`gate`]: the gate as a process
//! - [`helm`]: the real helm, and what it makes of the chart
//! - [`history`]: every state that ApiKeys and Secrets went through, and what must hold in all of them
//! - [`http2`]: frames of a hostile client
//! - [`inprocess`]: the controller in this process, with a clock of its own
//! - [`kstatus`]: what deployment tools make of an object
//! - [`leaks`]: looks for keys where none may be
//! - [`proxies`]: the real proxies of `examples/gate/`, with an [`upstream`] behind and a [`client`] before them
//! - [`proxy`]: misbehaves between the controller and the API server
//! - [`rights`]: what the controller and the gates asked for
//! - [`watch_server`]: an API server of a hundred thousand made-up ApiKeys
//! - [`tls`]: certificates, files with them, and clients that believe them
//! - [`rights`]: what the controller's ServiceAccount asked for

#![allow(
    dead_code,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "test support: a broken harness stops at once"
)]

pub(crate) mod admission;
pub(crate) mod asker;
pub(crate) mod client;
pub(crate) mod cluster;
#[path = "../../dev/control_plane/mod.rs"]
pub(crate) mod control_plane;
pub(crate) mod gate;
pub(crate) mod helm;
pub(crate) mod history;
pub(crate) mod http2;
pub(crate) mod inprocess;
pub(crate) mod kstatus;
pub(crate) mod leaks;
pub(crate) mod many;
pub(crate) mod memory_group;
pub(crate) mod operator;
pub(crate) mod proxies;
pub(crate) mod proxy;
pub(crate) mod rights;
pub(crate) mod stage;
pub(crate) mod tls;
pub(crate) mod upstream;
pub(crate) mod wait;
pub(crate) mod watch_server;

/// One story: its name, and what happens.
pub(crate) type Story = (&'static str, fn());

/// Lists the stories of a file: `stories![a_key_is_issued, …]`.
#[macro_export]
macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        /// The stories of this file.
        pub(crate) fn stories() -> Vec<$crate::support::Story> {
            vec![$((concat!(module_path!(), "::", stringify!($story)), $story as fn())),*]
        }
    };
}

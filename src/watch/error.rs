//! Why a list or a watch ended.

use std::time::Duration;

use kube::core::request;

use super::collection::Collection;

/// Why a list or a watch ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The API server no longer has the changes since then. Only a list shows them.
    #[error("the API server has forgotten the changes since resourceVersion {0}")]
    Expired(String),
    /// A change may have been lost. Only a list shows it.
    #[error("an answer of the API server cannot be decoded: relisting")]
    Unreadable,
    /// The API server counts from lower again, or in a way that does not compare.
    #[error(
        "the API server stands at resourceVersion {now}, before {since}, as after a restore: relisting"
    )]
    Restored {
        /// Its resourceVersion.
        now: String,
        /// The one that a watch has reached.
        since: String,
    },
    /// The stream of a watch has ended before its time.
    #[error("the watch has ended before its time")]
    Early {
        /// Whether it had sent an event.
        progress: bool,
    },
    /// Watches are answered and send nothing, and the handler's limit is near.
    #[error("no watch has sent anything for almost --max-staleness: relisting")]
    Due,
    /// An event that came after the handler's limit does not say what happened before it.
    #[error("the API server was silent for longer than --max-staleness: relisting")]
    Overdue,
    /// The CustomResourceDefinition is missing.
    #[error(
        "{0} is not known to the API server: install the CustomResourceDefinitions with \
         `claviger manifests | kubectl apply --server-side -f -`"
    )]
    NotServed(String),
    /// A right is missing.
    #[error(
        "{}; the verbs list and watch on {resource} are needed{advice}",
        crate::telemetry::describe(source)
    )]
    Forbidden {
        /// The API server's answer.
        #[source]
        source: Box<kube::Error>,
        /// The resource and its group.
        resource: String,
        /// What else helps.
        advice: &'static str,
    },
    /// The API server refused, or could not be reached.
    #[error("{}", crate::telemetry::describe(.0))]
    Api(#[source] Box<kube::Error>),
    /// A request was not answered in time.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// A watch has sent nothing, not even its end.
    #[error("nothing was heard for {} s", .0.as_secs())]
    Silent(Duration),
    /// A single object is larger than a page may be.
    #[error("one object takes more than {0} bytes, which is more than the API server can store")]
    TooLarge(usize),
    /// The request is malformed.
    #[error("the request cannot be written: {0}")]
    Request(#[source] request::Error),
}

impl Error {
    /// With advice, where there is one.
    pub(super) fn of(error: kube::Error, collection: &Collection) -> Self {
        let resource = || format!("{}{}", collection.name, collection.group);
        match &error {
            kube::Error::Api(status) if status.code == 403 => Self::Forbidden {
                source: Box::new(error),
                resource: resource(),
                advice: collection.without_right,
            },
            kube::Error::Api(status) if status.code == 404 => Self::NotServed(resource()),
            _ => Self::Api(Box::new(error)),
        }
    }

    /// 410 says that the changes since `resource_version` are forgotten.
    pub(super) fn or_expired(self, resource_version: &str) -> Self {
        match &self {
            Self::Api(api) if matches!(&**api, kube::Error::Api(status) if status.code == 410) => {
                Self::Expired(resource_version.to_owned())
            }
            _ => self,
        }
    }

    /// Whether only a list shows what happened.
    pub(super) fn needs_list(&self) -> bool {
        matches!(
            self,
            Self::Expired(_) | Self::Unreadable | Self::Restored { .. } | Self::Due | Self::Overdue
        )
    }

    /// How long an overloaded API server asks to be left alone; zero where it does not say.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let Self::Api(api) = self else { return None };
        let kube::Error::Api(status) = &**api else {
            return None;
        };
        let seconds = status
            .details
            .as_ref()
            .map_or(0, |details| details.retry_after_seconds);
        (status.code == 429).then(|| Duration::from_secs(seconds.into()))
    }
}

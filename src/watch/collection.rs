//! A collection of the API server.

use kube::Resource;

/// The objects of one kind, in the whole cluster or in one namespace.
#[derive(Clone, Debug)]
pub struct Collection {
    /// The path of its requests.
    pub(super) path: String,
    /// Its name in messages and metrics: the plural of the resource.
    pub(super) name: &'static str,
    /// The group, behind a dot; empty for the core group.
    pub(super) group: String,
    /// What else helps where the right to list or watch is missing. Follows the message about it.
    pub(super) without_right: &'static str,
}

impl Collection {
    /// The objects of the kind `K`, whose plural is `name`; those of one namespace where it is given
    /// and the kind has namespaces.
    #[must_use]
    pub fn new<K>(name: &'static str, namespace: Option<&str>) -> Self
    where
        K: Resource<DynamicType = ()>,
    {
        let group = K::group(&());
        Self {
            path: K::url_path(&(), namespace),
            name,
            group: if group.is_empty() {
                String::new()
            } else {
                format!(".{group}")
            },
            without_right: "",
        }
    }

    /// What else a person can do where the right to list or watch is missing, such as
    /// `, or --namespace`.
    #[must_use]
    pub fn without_right(mut self, advice: &'static str) -> Self {
        self.without_right = advice;
        self
    }
}

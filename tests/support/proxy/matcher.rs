//! Which requests a fault is meant for.

use super::call::{Call, Verb};
use std::fmt;
use std::sync::Arc;

type Condition = Arc<dyn Fn(&Call) -> bool + Send + Sync>;

/// Conditions that a request must all meet.
#[derive(Clone)]
pub(crate) struct Matcher {
    conditions: Vec<Condition>,
    /// Counted per rule: matches before this one do not trigger it.
    pub(super) first: usize,
    label: String,
}

impl Matcher {
    /// Every request, discovery and health checks included.
    pub(crate) fn any() -> Self {
        Self {
            conditions: Vec::new(),
            first: 1,
            label: String::new(),
        }
    }

    /// A verb on `resource` or on `resource/subresource`; the former excludes all subresources.
    pub(crate) fn call(verb: Verb, target: &str) -> Self {
        let target = target.to_owned();
        let label = format!("{verb} {target}");
        Self::any().and(label, move |call| {
            call.verb == verb && call.target() == target
        })
    }

    /// Whatever changes state: creates, updates, patches, deletes without dry run.
    pub(crate) fn mutations() -> Self {
        Self::any().and("mutation", Call::is_mutation)
    }

    /// Whatever changes state except the traffic that comes at unpredictable moments (leases and
    /// events): what a crash-point story numbers.
    pub(crate) fn work() -> Self {
        Self::mutations().except("leases").except("events")
    }

    pub(crate) fn verb(self, verb: Verb) -> Self {
        self.and(verb.to_string(), move |call| call.verb == verb)
    }

    /// The resource or any of its subresources.
    pub(crate) fn resource(self, resource: &str) -> Self {
        let resource = resource.to_owned();
        self.and(resource.clone(), move |call| call.resource == resource)
    }

    /// Neither the resource nor its subresources.
    pub(crate) fn except(self, resource: &str) -> Self {
        let resource = resource.to_owned();
        let label = format!("not {resource}");
        self.and(label, move |call| call.resource != resource)
    }

    pub(crate) fn subresource(self, subresource: &str) -> Self {
        let subresource = subresource.to_owned();
        let label = format!("/{subresource}");
        self.and(label, move |call| {
            call.subresource.as_deref() == Some(&subresource)
        })
    }

    pub(crate) fn namespace(self, namespace: &str) -> Self {
        let namespace = namespace.to_owned();
        let label = format!("in {namespace}");
        self.and(label, move |call| {
            call.namespace.as_deref() == Some(&namespace)
        })
    }

    pub(crate) fn name(self, name: &str) -> Self {
        let name = name.to_owned();
        let label = format!("named {name}");
        self.and(label, move |call| call.name.as_deref() == Some(&name))
    }

    /// The request with this [`Call::ordinal`].
    pub(crate) fn ordinal(self, ordinal: usize) -> Self {
        self.and(format!("#{ordinal}"), move |call| call.ordinal == ordinal)
    }

    /// The `n`-th request, from 1, that meets all other conditions after the rule was added; with
    /// `times` or `always` on the rule, from the `n`-th on. Unlike the ordinal it counts across
    /// verbs and resources.
    pub(crate) fn nth(mut self, n: usize) -> Self {
        self.first = n;
        self
    }

    /// Any condition.
    pub(crate) fn filter(self, condition: impl Fn(&Call) -> bool + Send + Sync + 'static) -> Self {
        self.and("filter", condition)
    }

    /// Whether a request meets the conditions, [`nth`](Self::nth) left aside.
    pub(crate) fn matches(&self, call: &Call) -> bool {
        self.conditions.iter().all(|condition| condition(call))
    }

    fn and(
        mut self,
        label: impl AsRef<str>,
        condition: impl Fn(&Call) -> bool + Send + Sync + 'static,
    ) -> Self {
        if !self.label.is_empty() {
            self.label.push(' ');
        }
        self.label.push_str(label.as_ref());
        self.conditions.push(Arc::new(condition));
        self
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = match self.label.as_str() {
            "" => "any",
            label => label,
        };
        write!(f, "Matcher({label}, from {})", self.first)
    }
}

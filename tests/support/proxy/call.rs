//! What a request asks for, by the rules of the API server's own request parser
//! (`k8s.io/apiserver/pkg/endpoints/request.RequestInfoFactory`).

use http::{Method, Uri};
use serde_json::Value;
use std::fmt;
use std::time::Instant;

/// What is done to a resource: the verbs of RBAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        })
    }
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    /// API group, `""` for the core group and for paths that name no resource.
    pub(crate) group: String,
    /// Plural resource; `""` for `/healthz`, `/version`, discovery and the like.
    pub(crate) resource: String,
    pub(crate) subresource: Option<String>,
    pub(crate) namespace: Option<String>,
    /// From the path; for a create from the body, if it has no `generateName`.
    pub(crate) name: Option<String>,
    /// Counts the requests equal in verb, resource and subresource since the last reset, from 1.
    pub(crate) ordinal: usize,
    /// `dryRun` is set, in the query or in the body of a delete.
    pub(crate) dry_run: bool,
    pub(crate) at: Instant,
    /// Path without the query, as sent.
    pub(crate) path: String,
    /// Query parameters in the order sent, decoded.
    pub(crate) query: Vec<(String, String)>,
}

impl Call {
    /// Reads a request; the ordinal is the journal's to fill in.
    pub(super) fn parse(method: &Method, uri: &Uri, body: &[u8]) -> Self {
        let query = parse_query(uri.query().unwrap_or_default());
        let mut call = Self {
            verb: match *method {
                Method::POST => Verb::Create,
                Method::PUT => Verb::Update,
                Method::PATCH => Verb::Patch,
                Method::DELETE => Verb::Delete,
                _ => Verb::Get,
            },
            group: String::new(),
            resource: String::new(),
            subresource: None,
            namespace: None,
            name: None,
            ordinal: 0,
            dry_run: query.iter().any(|(k, v)| k == "dryRun" && !v.is_empty()),
            at: Instant::now(),
            path: uri.path().to_owned(),
            query,
        };
        call.read_path();
        if !call.resource.is_empty() {
            call.read_body(body);
        }
        call
    }

    fn read_path(&mut self) {
        let path = std::mem::take(&mut self.path);
        let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
        let mut rest = match segments.as_slice() {
            ["api", _version, rest @ ..] => rest,
            ["apis", group, _version, rest @ ..] if !rest.is_empty() => {
                decode(group).clone_into(&mut self.group);
                rest
            }
            _ => &[],
        };
        // The old form of a watch, still served: /api/v1/watch/namespaces/...
        if let ["watch", of @ ..] = rest
            && !of.is_empty()
        {
            self.verb = Verb::Watch;
            rest = of;
        }
        if let ["namespaces", namespace, of @ ..] = rest {
            self.namespace = Some(decode(namespace));
            // `status` and `finalize` belong to the namespace object itself.
            if !matches!(of, [] | ["status" | "finalize", ..]) {
                rest = of;
            }
        }
        self.resource = rest.first().map(|s| decode(s)).unwrap_or_default();
        self.name = rest.get(1).map(|s| decode(s));
        self.subresource = rest.get(2).map(|s| decode(s));
        self.path = path;
        if self.resource.is_empty() || self.name.is_some() {
            return;
        }
        match self.verb {
            Verb::Get if self.asks_to_watch() => self.verb = Verb::Watch,
            Verb::Get => self.verb = Verb::List,
            Verb::Delete => self.verb = Verb::DeleteCollection,
            _ => {}
        }
    }

    fn asks_to_watch(&self) -> bool {
        self.parameter("watch")
            .is_some_and(|value| !matches!(value, "false" | "0"))
    }

    fn read_body(&mut self, body: &[u8]) {
        match self.verb {
            Verb::Create if self.name.is_none() => {
                self.name = serde_json::from_slice::<Value>(body)
                    .ok()
                    .and_then(|object| Some(object["metadata"]["name"].as_str()?.to_owned()))
                    .filter(|name| !name.is_empty());
            }
            Verb::Delete | Verb::DeleteCollection => {
                self.dry_run |= serde_json::from_slice::<Value>(body).is_ok_and(|options| {
                    options["dryRun"].as_array().is_some_and(|d| !d.is_empty())
                });
            }
            _ => {}
        }
    }

    /// The first value of a query parameter.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let mut values = self.query.iter().filter(|(key, _)| key == name);
        values.next().map(|(_, value)| value.as_str())
    }

    /// Changes state if the API server accepts it: neither a read nor a dry run.
    pub(crate) fn is_mutation(&self) -> bool {
        !matches!(self.verb, Verb::Get | Verb::List | Verb::Watch) && !self.dry_run
    }

    /// `apikeys` or `apikeys/status`.
    pub(crate) fn target(&self) -> String {
        match &self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.resource),
            None => self.resource.clone(),
        }
    }
}

impl fmt::Display for Call {
    /// `update apikeys/status team-a/billing #1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.resource.is_empty() {
            return write!(f, "{} {}", self.verb, self.path);
        }
        write!(f, "{} {}", self.verb, self.target())?;
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => write!(f, " {namespace}/{name}")?,
            (None, Some(one)) | (Some(one), None) => write!(f, " {one}")?,
            (None, None) => {}
        }
        write!(f, " #{}", self.ordinal)?;
        if self.dry_run {
            f.write_str(" (dry run)")?;
        }
        Ok(())
    }
}

fn parse_query(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (
                decode(&key.replace('+', " ")),
                decode(&value.replace('+', " ")),
            )
        })
        .collect()
}

/// Undoes percent-encoding; what is not valid stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

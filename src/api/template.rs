//! What a person wants on the delivered Secret besides the key.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::schema::{values_at_most_63, values_at_most_256, values_at_most_1024};

/// What to put on the delivered Secret besides the key. May be edited; what others put there is kept.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretTemplate {
    /// Labels and annotations for the Secret. Nothing is copied from the ApiKey's own metadata.
    #[serde(default, skip_serializing_if = "TemplateMetadata::is_empty")]
    pub metadata: TemplateMetadata,
    /// Further entries of the Secret. `${key}`, `${keyId}`, `${tail}`, `${name}`, `${namespace}` and `${prefix}` are replaced.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8), transform = values_at_most_1024)]
    #[x_kube(
        validation = Rule::new("self.all(k, k.size() <= 253 && k.matches('^([-_a-zA-Z0-9]|[.][-_a-zA-Z0-9])[-._a-zA-Z0-9]*$'))")
            .message("the name of a Secret's entry has at most 253 characters out of letters, digits, -, _ and ., and does not begin with .."),
        validation = Rule::new("self.all(k, !self[k].replace('${key}', '').replace('${keyId}', '').replace('${tail}', '').replace('${name}', '').replace('${namespace}', '').replace('${prefix}', '').contains('${'))")
            .message("a template knows only ${key}, ${keyId}, ${tail}, ${name}, ${namespace} and ${prefix}"),
    )]
    pub data: BTreeMap<String, String>,
}

/// Labels and annotations of the delivered Secret, taken as they are: no `${…}` is replaced here.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// Labels for the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16), transform = values_at_most_63)]
    #[x_kube(
        validation = Rule::new("self.all(k, !format.qualifiedName().validate(k).hasValue())")
            .message("a label's name is [prefix/]name: at most 63 letters, digits, -, _ and . after an optional DNS name"),
        validation = Rule::new("self.all(k, self[k].matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$'))")
            .message("a label's value has at most 63 letters, digits, -, _ and ., and begins and ends with a letter or digit"),
        validation = Rule::new("self.all(k, !k.startsWith('claviger.dev/') && k != 'app.kubernetes.io/managed-by')")
            .message("claviger.dev/… and app.kubernetes.io/managed-by are set by Claviger"),
    )]
    pub labels: BTreeMap<String, String>,
    /// Annotations for the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16), transform = values_at_most_256)]
    #[x_kube(
        validation = Rule::new("self.all(k, !format.qualifiedName().validate(k).hasValue())")
            .message("an annotation's name is [prefix/]name: at most 63 letters, digits, -, _ and . after an optional DNS name"),
        validation = Rule::new("self.all(k, !k.startsWith('claviger.dev/'))").message("claviger.dev/… is set by Claviger"),
    )]
    pub annotations: BTreeMap<String, String>,
}

/// What the placeholders of a template stand for. The key itself is handed in apart from these.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// `${keyId}`
    pub key_id: &'a str,
    /// `${tail}`
    pub tail: &'a str,
    /// `${name}`
    pub name: &'a str,
    /// `${namespace}`
    pub namespace: &'a str,
    /// `${prefix}`
    pub prefix: &'a str,
}

impl SecretTemplate {
    /// Whether the template asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.metadata.is_empty() && self.data.is_empty()
    }

    /// One entry with its placeholders replaced, in one pass: what a value brings in is not looked at again.
    #[must_use]
    pub fn expand(text: &str, key: &str, facts: &Facts<'_>) -> String {
        // Room for every replacement at once: growing would leave copies of the key behind in freed memory.
        let mut out = String::with_capacity(text.len() + text.matches("${").count() * 256);
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let known = after
                .split_once('}')
                .and_then(|(name, tail)| Some((value(name, key, facts)?, tail)));
            if let Some((value, tail)) = known {
                out.push_str(value);
                rest = tail;
            } else {
                out.push_str("${");
                rest = after;
            }
        }
        out.push_str(rest);
        out
    }
}

impl TemplateMetadata {
    /// Whether no labels and no annotations are asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

fn value<'a>(name: &str, key: &'a str, facts: &Facts<'a>) -> Option<&'a str> {
    Some(match name {
        "key" => key,
        "keyId" => facts.key_id,
        "tail" => facts.tail,
        "name" => facts.name,
        "namespace" => facts.namespace,
        "prefix" => facts.prefix,
        _ => return None,
    })
}

//! The `ApiKeyRole`: permissions under one name.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// What a role lets keys do. Editing it changes what all its keys may do at once; no key is touched.
#[expect(clippy::duplicated_attributes, reason = "every column has its own")]
#[derive(
    CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize,
)]
#[kube(
    group = "claviger.dev",
    version = "v1alpha1",
    kind = "ApiKeyRole",
    plural = "apikeyroles",
    singular = "apikeyrole",
    shortname = "akr",
    category = "claviger",
    derive = "PartialEq",
    derive = "Default",
    doc = "ApiKeyRole gives permissions a name. ApiKeys list roles; editing a role changes what all its keys may do at once.",
    printcolumn(name = "Title", type_ = "string", json_path = ".spec.title"),
    printcolumn(
        name = "Permissions",
        type_ = "string",
        json_path = ".spec.permissions",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyRoleSpec {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub title: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub description: Option<String>,
    /// What its keys may do, such as `invoices:read`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(
            length(min = 1, max = 128),
            regex(pattern = "^[A-Za-z0-9][-A-Za-z0-9:._/]*$")
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub permissions: Vec<String>,
}

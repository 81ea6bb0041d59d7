//! Bounds that the schema generator has no words for.

use schemars::Schema;
use serde_json::Value;

/// Bounds the values of a map to 63 characters: they are label values.
pub(super) fn values_at_most_63(schema: &mut Schema) {
    bound_values(schema, 63);
}

/// Bounds the values of a map to 256 characters.
pub(super) fn values_at_most_256(schema: &mut Schema) {
    bound_values(schema, 256);
}

/// Bounds the values of a map to 1,024 characters.
pub(super) fn values_at_most_1024(schema: &mut Schema) {
    bound_values(schema, 1_024);
}

fn bound_values(schema: &mut Schema, max: u64) {
    if let Some(values) = schema
        .get_mut("additionalProperties")
        .and_then(Value::as_object_mut)
    {
        values.insert("maxLength".to_owned(), max.into());
    }
}

//! What gates say of themselves: last uses are written into the ApiKeys' status, gates that are silent or behind are told of, and a
//! rotated key is not given out before they know it.
//!
//! A `Gate` is written by a ServiceAccount that faces the network. All that can come of a forged one is a wrong `lastUsedAt`, a wrong
//! event about that gate, and a rotation that takes some seconds longer, or does not wait for gates.
//!
//! - [`folding`], [`standing`], [`waiting`]: decisions, pure
//! - [`reports`]: what is known
//! - [`hold`]: what that means for a key that is to be delivered
//! - [`work`]: where they meet the API server

mod folding;
pub(super) mod hold;
pub(super) mod reports;
mod standing;
mod waiting;
pub(super) mod work;

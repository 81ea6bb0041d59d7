//! What a gate says of itself: one [`Gate`](crate::api::Gate) object per replica, for people and for last use.
//!
//! - [`Uses`] remembers last uses until the ApiKeys' status shows them. Noting one costs a verdict a comparison.
//! - [`Reporter`] writes the object: at most once a second, when something has changed or the heartbeat is due.
//!
//! No verdict waits for any of it, and none depends on it.

mod pace;
mod reporter;
mod uses;

pub use pace::{HEARTBEAT, LONGEST_PAUSE, SHORTEST_PAUSE};
pub use reporter::{FIELD_MANAGER, GateFacts, Identity, Reporter};
pub use uses::{MAX_PENDING, Noted, Subject, Uses};

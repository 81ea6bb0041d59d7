//! What should happen to an `ApiKey`.
//!
//! [`plan()`] looks at a [`World`] and says the next [`Step`]. The caller takes the step, looks again, and goes on until the
//! plan says [`Step::Settled`]. Pure: no I/O, no clock, no randomness; `now` is an argument.
//!
//! What every plan keeps, whatever fails, is killed, is repeated, is seen late or is done by a second controller:
//! a version is announced in the status before its key can be anywhere else; a version whose outcome is unknown is never
//! minted over, but stays listed until another is confirmed; and a Secret that the status does not know is never touched.

mod assess;
mod look;
mod news;
mod plan;
mod policy;
mod retention;
mod rotation;
mod secret;
mod status;
mod words;
mod world;

pub use look::{clock_matters, needs_duplicates, needs_secret, needs_source};
pub use news::{News, Tone, clip, news};
pub use plan::{Plan, Step, Wake, plan};
pub(crate) use secret::applied_template;
pub use secret::{Mending, SecretShape, owner_reference, replacement, shape};
pub use status::Announcement;
pub use world::{
    Clock, Delivery, FoundIn, FoundKey, GateView, Outstanding, Refusal, Rules, SecretFacts,
    SecretView, SourceView, Surroundings, Unfit, World,
};

#[cfg(test)]
mod tests;

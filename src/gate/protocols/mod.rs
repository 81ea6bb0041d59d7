//! Adapters between what callers speak and the one decision.

mod check;
mod forward;
mod health;
mod verify;

pub use check::{PATHS as GRPC_PATHS, service as ext_authz, whole_question};
pub use forward::{PATH as FORWARD_PATH, handle as forward};
pub use health::{Ready, grpc_health, healthz};
pub use verify::{MAX_BATCH, MAX_BODY, Verification, Verified, Verify, VerifyError};

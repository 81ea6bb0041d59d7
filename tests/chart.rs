//! Installing with Helm: what the chart renders, and what becomes of keys when a release is upgraded, rolled back, uninstalled
//! and installed again. No pod runs on this control plane: the controller is started with the arguments that the Deployment gives.

mod gate_deployed;
mod gate_values;
mod gates;
mod releases;
mod values;

use crate::support::Story;

/// The stories of all files.
pub(crate) fn stories() -> Vec<Story> {
    [
        gate_deployed::stories(),
        gate_values::stories(),
        gates::stories(),
        releases::stories(),
        values::stories(),
    ]
    .concat()
}

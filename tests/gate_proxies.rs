//! Real proxies before an API, each as its file in `examples/gate/` says.

mod browsers;
mod closed;
mod envoys;
mod forged;
mod issued;
mod places;
mod relay;
mod silent_gate;
mod spellings;
mod verdicts;

use crate::support::Story;

/// The stories of this folder.
pub(crate) fn all() -> Vec<Story> {
    [
        browsers::stories(),
        closed::stories(),
        envoys::stories(),
        issued::stories(),
        places::stories(),
        silent_gate::stories(),
    ]
    .concat()
}

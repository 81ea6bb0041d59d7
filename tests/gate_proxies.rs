//! Real proxies before an API, each as its file in `examples/gate/` says.

mod closed;
mod forged;
mod issued;
mod places;
mod relay;
mod verdicts;

use crate::support::Story;

/// The stories of this folder.
pub(crate) fn all() -> Vec<Story> {
    [closed::stories(), issued::stories(), places::stories()].concat()
}

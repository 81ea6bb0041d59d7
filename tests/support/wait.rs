//! Waiting for conditions. Nothing here sleeps and hopes: what is waited for is looked at again and again until it holds.

use std::time::{Duration, Instant};

/// How long a story waits for what must come. Generous, because the machine may be busy; nothing asserts how long it took.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// Waits until `look` finds something, and says what was seen last if it never does.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if begun.elapsed() > LIMIT => {
                panic!("waited {LIMIT:?} in vain until {what}; last seen: {seen}")
            }
            Err(_) => std::thread::park_timeout(Duration::from_millis(50)),
        }
    }
}

/// Waits until `holds` does.
pub(crate) fn until_true(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, || {
        if holds() {
            Ok(())
        } else {
            Err("not so".to_owned())
        }
    });
}

//! What becomes of the events of a watch on their way to the operator.

use super::call::Call;
use super::signal::Counter;
use super::upstream::BoxError;
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How a watch is told that its resource version is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// 200 and one `ERROR` event: what kube-apiserver does. A client lists again.
    Event,
    /// HTTP status 410: what an aggregated API server may do. kube-runtime 5 does not list again
    /// on this, it resumes from the same resource version.
    Status,
}

/// The watches of all resources.
#[derive(Debug, Default)]
pub(super) struct Watches {
    rooms: Mutex<HashMap<String, Room>>,
}

/// The watches of one resource.
#[derive(Debug, Default)]
struct Room {
    gate: Arc<watch::Sender<Gate>>,
    stopped: Arc<Counter>,
    /// Keys of the open watches; equal ones occur more than once.
    open: Vec<String>,
    /// Who is to be told next that its resource version is gone.
    expired: Vec<Expired>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Gate {
    held: bool,
    swallowing: bool,
    /// A watch ends when this is no longer what it was when the watch began.
    epoch: u64,
    /// How many watches have begun.
    begun: u64,
    /// Of these, the first so many are dead: nothing comes out of them any more, not even their end.
    dead: u64,
}

#[derive(Debug)]
struct Expired {
    /// `None`: whoever comes first.
    key: Option<String>,
    gone: Gone,
}

/// Whether a watch may begin.
pub(super) enum Admission {
    Expired(Gone),
    Open(Pass),
}

/// A watch's place in its room; dropping it leaves the room.
pub(super) struct Pass {
    watches: Arc<Watches>,
    resource: String,
    key: String,
    gate: watch::Receiver<Gate>,
    epoch: u64,
    number: u64,
    stopped: Arc<Counter>,
}

impl Watches {
    fn rooms(&self) -> MutexGuard<'_, HashMap<String, Room>> {
        self.rooms.lock().expect("watches")
    }

    fn in_room<T>(&self, resource: &str, act: impl FnOnce(&mut Room) -> T) -> T {
        act(self.rooms().entry(resource.to_owned()).or_default())
    }

    pub(super) fn hold(&self, resource: &str, held: bool) {
        self.in_room(resource, |room| {
            if held {
                room.stopped.reset();
            }
            room.gate.send_modify(|gate| gate.held = held);
        });
    }

    pub(super) fn swallow(&self, resource: &str) {
        self.in_room(resource, |room| {
            room.stopped.reset();
            room.gate.send_modify(|gate| gate.swallowing = true);
        });
    }

    pub(super) fn deaden(&self, resource: &str) {
        self.in_room(resource, |room| {
            room.stopped.reset();
            room.gate.send_modify(|gate| gate.dead = gate.begun);
        });
    }

    pub(super) fn cut(&self, resource: &str) {
        self.in_room(resource, |room| {
            room.gate.send_modify(|gate| gate.epoch += 1);
        });
    }

    pub(super) fn expire(&self, resource: &str, gone: Gone) {
        self.in_room(resource, |room| {
            // Each open watch is refused once. A count alone would refuse the quickest twice.
            let keys = room.open.iter().cloned().map(Some);
            room.expired = keys.map(|key| Expired { key, gone }).collect();
            if room.expired.is_empty() {
                room.expired.push(Expired { key: None, gone });
            }
            room.gate.send_modify(|gate| {
                gate.epoch += 1;
                gate.swallowing = false;
            });
        });
    }

    pub(super) fn open(&self, resource: &str) -> usize {
        self.in_room(resource, |room| room.open.len())
    }

    pub(super) fn wait_stopped(&self, resource: &str, events: u64, limit: Duration) -> bool {
        let stopped = self.in_room(resource, |room| room.stopped.clone());
        stopped.wait(events, limit)
    }

    pub(super) fn admit(self: &Arc<Self>, call: &Call) -> Admission {
        let key = key(call);
        self.in_room(&call.resource, |room| {
            // Only a watch that resumes can come too late.
            let resumes = !matches!(call.parameter("resourceVersion"), None | Some("" | "0"));
            let is_due = |due: &Expired| due.key.as_ref().is_none_or(|due| *due == key);
            if resumes && let Some(due) = room.expired.iter().position(is_due) {
                return Admission::Expired(room.expired.swap_remove(due).gone);
            }
            room.open.push(key.clone());
            room.gate.send_modify(|gate| gate.begun += 1);
            let gate = room.gate.subscribe();
            let Gate {
                epoch,
                begun: number,
                ..
            } = *gate.borrow();
            Admission::Open(Pass {
                watches: self.clone(),
                resource: call.resource.clone(),
                key,
                gate,
                epoch,
                number,
                stopped: room.stopped.clone(),
            })
        })
    }
}

/// Tells apart the watches of one resource, and stays the same when one is resumed.
fn key(call: &Call) -> String {
    let parameter = |name| call.parameter(name).unwrap_or_default();
    format!(
        "{}?{}&{}",
        call.path,
        parameter("labelSelector"),
        parameter("fieldSelector")
    )
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.watches.in_room(&self.resource, |room| {
            if let Some(index) = room.open.iter().position(|key| *key == self.key) {
                room.open.swap_remove(index);
            }
        });
    }
}

/// Carries a watch from the API server to the operator, line by line since a line is an event,
/// until either side leaves or the room ends it.
pub(super) async fn carry<B>(
    mut upstream: B,
    mut pass: Pass,
    out: mpsc::UnboundedSender<Result<Bytes, BoxError>>,
) where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let mut lines = Lines::default();
    let mut ended = false;
    loop {
        let gate = *pass.gate.borrow_and_update();
        if gate.epoch != pass.epoch {
            return;
        }
        let new_events = std::mem::take(&mut lines.new_events);
        let held = gate.held || pass.number <= gate.dead;
        if held || gate.swallowing {
            pass.stopped.add(new_events);
        }
        if gate.swallowing {
            lines.complete.clear();
        }
        if !held {
            for line in lines.complete.drain(..) {
                let _ = out.send(Ok(line)); // a reader that left is noticed below
            }
            if ended {
                return;
            }
        }
        tokio::select! {
            changed = pass.gate.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = out.closed() => return,
            frame = upstream.frame(), if !ended => match frame {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        lines.push(&data);
                    }
                }
                Some(Err(error)) => {
                    let _ = out.send(Err(error.into()));
                    return;
                }
                None => {
                    lines.finish();
                    ended = true;
                }
            }
        }
    }
}

/// Cuts a byte stream into lines.
#[derive(Default)]
struct Lines {
    complete: Vec<Bytes>,
    partial: Vec<u8>,
    /// Complete lines, bookmarks left out, that are not yet accounted for.
    new_events: u64,
}

impl Lines {
    fn push(&mut self, data: &[u8]) {
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.new_events += u64::from(!self.partial.starts_with(br#"{"type":"BOOKMARK""#));
                self.complete.push(std::mem::take(&mut self.partial).into());
            }
        }
    }

    /// What has no line end at the end of the stream is passed on as it is.
    fn finish(&mut self) {
        if !self.partial.is_empty() {
            self.complete.push(std::mem::take(&mut self.partial).into());
        }
    }
}

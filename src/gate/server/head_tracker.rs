//! Whether a request head is under way, by the bytes that a peer sends.
//!
//! Over HTTP/1 the first byte between two requests begins a head. Over HTTP/2 a head is a header
//! block: a HEADERS frame and CONTINUATION frames, until one has the flag `END_HEADERS` (RFC 9113,
//! sections 4.1, 6.2 and 6.10). hyper gives neither a timeout that leaves idle time out: its own for
//! HTTP/1 counts from the end of the last request, and for HTTP/2 there is none.

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The length of a frame's header.
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Whether the bytes that were read last end within a request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    None,
    /// In the one that was under way before.
    Same,
    /// In one that began with these bytes.
    New,
}

/// Follows the bytes of one connection.
pub(super) enum HeadTracker {
    /// So many bytes were as HTTP/2 begins.
    Unknown(usize),
    /// Whether a head is under way.
    Http1(bool),
    Http2(Frames),
}

/// Follows the frames of an HTTP/2 peer.
#[derive(Default)]
pub(super) struct Frames {
    /// The header of the next frame, as far as it is here.
    header: [u8; FRAME_HEADER],
    received: usize,
    /// Bytes of the frame's payload that are still to come.
    payload: usize,
    in_block: bool,
    /// The block began with what was read last.
    is_new: bool,
    /// The block ends with this frame.
    last_of_block: bool,
}

impl HeadTracker {
    pub(super) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// The head of an HTTP/1 request is whole. Tells whether the peer speaks HTTP/1.
    pub(super) fn end_http1_head(&mut self) -> bool {
        if let Self::Http1(in_head) = self {
            *in_head = false;
        }
        !self.is_http2()
    }

    /// Takes in what was read, which is not empty. `idle`: no request is in flight.
    pub(super) fn read(&mut self, bytes: &[u8], idle: bool) -> Head {
        if let Self::Unknown(matched) = *self {
            let wanted = PREFACE.get(matched..).unwrap_or_default();
            if let Some(rest) = bytes.strip_prefix(wanted) {
                let mut frames = Frames::default();
                frames.read(rest);
                *self = Self::Http2(frames);
            } else if wanted.starts_with(bytes) {
                *self = Self::Unknown(matched + bytes.len());
                return if matched == 0 { Head::New } else { Head::Same };
            } else {
                *self = Self::Http1(matched > 0);
            }
        } else if let Self::Http2(frames) = self {
            frames.is_new = false;
            frames.read(bytes);
        }
        let (in_head, is_new) = match self {
            Self::Http2(frames) => (frames.in_block, frames.is_new),
            Self::Http1(in_head) => (idle, !std::mem::replace(in_head, idle)),
            Self::Unknown(_) => (true, false),
        };
        match (in_head, is_new) {
            (false, _) => Head::None,
            (true, true) => Head::New,
            (true, false) => Head::Same,
        }
    }
}

impl Frames {
    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload == 0 {
                let missing = FRAME_HEADER - self.received;
                let (piece, rest) = bytes.split_at(missing.min(bytes.len()));
                let header = self.header.iter_mut().skip(self.received);
                header.zip(piece).for_each(|(to, from)| *to = *from);
                (self.received, bytes) = (self.received + piece.len(), rest);
                if self.received == FRAME_HEADER {
                    self.begin_frame();
                }
            } else {
                let length = self.payload.min(bytes.len());
                bytes = bytes.get(length..).unwrap_or_default();
                self.payload -= length;
            }
            if self.received == 0 && self.payload == 0 && self.last_of_block {
                (self.in_block, self.last_of_block) = (false, false);
            }
        }
    }

    fn begin_frame(&mut self) {
        let [a, b, c, kind, flags, ..] = self.header;
        self.received = 0;
        self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        if matches!(kind, HEADERS | CONTINUATION) {
            self.is_new |= !self.in_block;
            self.in_block = true;
            self.last_of_block = flags & END_HEADERS != 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// Whether a head is under way after these pieces of HTTP/2.
    fn in_block(pieces: &[&[u8]]) -> bool {
        let mut tracker = HeadTracker::Unknown(0);
        assert_eq!(tracker.read(PREFACE, true), Head::None);
        let ends = pieces
            .iter()
            .map(|piece| tracker.read(piece, true) != Head::None);
        ends.last().unwrap()
    }

    #[test]
    fn header_block_lasts_until_its_last_frame_is_whole() {
        let open = frame(HEADERS, 0, b"half");
        let (more, end) = (
            frame(CONTINUATION, 0, b""),
            frame(CONTINUATION, END_HEADERS, b"rest"),
        );
        assert!(in_block(&[&open]));
        assert!(in_block(&[&open, &more]));
        assert!(!in_block(&[&open, &more, &end]));
        assert!(!in_block(&[&[open, more, end].concat()]));
        let whole = frame(HEADERS, END_HEADERS, b"whole");
        assert!(!in_block(&[&whole]));
        assert!(
            in_block(&[&whole[..FRAME_HEADER]]),
            "the payload is still to come"
        );
        assert!(in_block(&[&whole[..whole.len() - 1]]));
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        assert!(!in_block(&bytes));
        assert!(!in_block(&[&frame(HEADERS, END_HEADERS, b"")]));
    }

    #[test]
    fn other_frames_begin_no_head() {
        let (settings, data, ping) = (
            frame(4, 0, b""),
            frame(0, 0, b"data"),
            frame(6, 0, b"12345678"),
        );
        assert!(!in_block(&[&settings, &data, &ping, &data[..10]]));
        let whole = frame(HEADERS, END_HEADERS, b"whole");
        assert!(!in_block(&[
            &[data.clone(), whole, data[..3].to_vec()].concat()
        ]));
    }

    #[test]
    fn preface_in_pieces_is_http2_and_anything_else_is_http1() {
        let mut tracker = HeadTracker::Unknown(0);
        // A head of HTTP/1 could begin so.
        assert_eq!(tracker.read(&PREFACE[..10], true), Head::New);
        assert_eq!(tracker.read(&PREFACE[10..12], true), Head::Same);
        assert_eq!(tracker.read(&PREFACE[12..], true), Head::None);
        assert!(tracker.is_http2());
        for text in [&b"GET / HTTP/1.1\r\n"[..], b"PRI * HTTP/1.1\r\n"] {
            let mut tracker = HeadTracker::Unknown(0);
            assert_eq!(tracker.read(text, true), Head::New);
            assert_eq!(tracker.read(b"host: gate", true), Head::Same);
            assert!(tracker.end_http1_head() && !tracker.is_http2());
            assert_eq!(
                tracker.read(b"body", false),
                Head::None,
                "a request is in flight"
            );
            assert_eq!(tracker.read(text, true), Head::New);
        }
    }
}

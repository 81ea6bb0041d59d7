//! Where in an HTTP/1 stream a connection is: in a head, in a body, exactly between two requests, or nobody knows.
//!
//! What comes in one piece with a request and does not belong to it stays in hyper's buffer, and nothing more needs to be read before
//! it matters. Who could not tell such a connection from an idle one would let it keep that buffer for as long as the idle may stay.
//! So the bytes are counted: heads end at their first empty line (RFC 9112, 2.1), bodies have their length or their last chunk.

/// How a body with chunks and no trailers ends (RFC 9112, 7.1).
const LAST_CHUNK: [u8; 5] = *b"0\r\n\r\n";

/// The position in the stream. To be told of all that is read, of requests that begin, and of their end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Framing {
    place: Place,
    /// Bytes that were read after the end of the head.
    beyond: u64,
    /// The last of them.
    tail: [u8; LAST_CHUNK.len()],
    /// The length of the body of the request under way; `None`: it has chunks.
    body: Option<u64>,
    /// Bytes that are still to come of a body that nobody waited for.
    owed: u64,
    unsure: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Between requests, where empty lines do not count.
    #[default]
    Before,
    /// In a line of a head that is not empty.
    Line,
    /// At the beginning of a line, perhaps behind a carriage return.
    Empty,
    /// Behind a head.
    Behind,
}

impl Framing {
    /// These bytes came. Tells whether some of them belong to a head, as far as that is known.
    pub(super) fn read(&mut self, bytes: &[u8]) -> bool {
        let owed = usize::try_from(self.owed)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        self.owed -= owed as u64;
        let mut rest = bytes.get(owed..).unwrap_or_default();
        if rest.is_empty() {
            return false;
        }
        while self.place != Place::Behind && !self.unsure {
            if self.place == Place::Line {
                // Nearly all of a head: nothing in a line matters but its end.
                let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                rest = rest.get(end..).unwrap_or_default();
            }
            let Some((&byte, others)) = rest.split_first() else {
                return true;
            };
            rest = others;
            self.place = match (self.place, byte) {
                (Place::Before, b'\r' | b'\n') => Place::Before,
                (Place::Empty, b'\n') => Place::Behind,
                (Place::Empty, b'\r') | (_, b'\n') => Place::Empty,
                _ => Place::Line,
            };
        }
        self.beyond += rest.len() as u64;
        let kept = rest
            .get(rest.len().saturating_sub(self.tail.len())..)
            .unwrap_or_default();
        self.tail.rotate_left(kept.len());
        if let Some(end) = self
            .tail
            .len()
            .checked_sub(kept.len())
            .and_then(|from| self.tail.get_mut(from..))
        {
            end.copy_from_slice(kept);
        }
        true
    }

    /// The head of a request is whole. `body` is the length of its body; `None` where that is not known beforehand.
    pub(super) fn begin(&mut self, body: Option<u64>) {
        self.body = body;
        // hyper found an end that was not found here, or one request came with another.
        self.unsure |= self.place != Place::Behind;
    }

    /// The request is answered.
    pub(super) fn end(&mut self) {
        match self.body {
            Some(length) => {
                self.owed = length.saturating_sub(self.beyond);
                self.unsure |= self.beyond > length;
            }
            None => self.unsure |= self.tail != LAST_CHUNK,
        }
        (self.place, self.beyond, self.tail) = (Place::Before, 0, [0; LAST_CHUNK.len()]);
    }

    /// Whether bytes of a further request may have been read already. Once that is so, it stays so.
    pub(super) fn unsure(&self) -> bool {
        self.unsure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "GET / HTTP/1.1\r\nhost: gate\r\n\r\n";

    /// Whether more may have been read than one request, which came in these pieces, the last of them after it began.
    fn unsure(body: Option<u64>, before: &[&str], after: &str) -> bool {
        let mut framing = Framing::default();
        for piece in before {
            assert!(framing.read(piece.as_bytes()));
        }
        framing.begin(body);
        framing.read(after.as_bytes());
        framing.end();
        framing.unsure()
    }

    #[test]
    fn a_request_that_comes_alone_leaves_nothing_behind() {
        assert!(!unsure(Some(0), &[HEAD], ""));
        assert!(!unsure(
            Some(0),
            &["\r\n", "GET / HTTP/1.1\r", "\nhost: gate\r\n", "\r", "\n"],
            ""
        ));
        assert!(
            !unsure(Some(0), &["\r\n\r\n", HEAD], ""),
            "what stands before a request is no head (RFC 9112, 2.2)"
        );
        assert!(!unsure(Some(0), &["GET / HTTP/1.1\nhost: gate\n\n"], ""));
        assert!(!unsure(Some(4), &[HEAD, "bo"], "dy"));
        assert!(!unsure(None, &[HEAD, "4\r\nbody\r\n0\r"], "\n\r\n"));
    }

    #[test]
    fn what_comes_with_a_request_is_seen() {
        for more in ["G", HEAD, "\r\n", "\r\n\r\n\r\n", "0\r\n\r\n"] {
            assert!(unsure(Some(0), &[HEAD, more], ""), "{more:?}");
            assert!(unsure(Some(0), &[&format!("{HEAD}{more}")], ""), "{more:?}");
            assert!(unsure(Some(4), &[HEAD, "body"], more), "{more:?}");
        }
        assert!(unsure(None, &[HEAD, "0\r\n\r\n"], "GET"));
        assert!(
            unsure(None, &[HEAD], "4\r\nbo"),
            "nobody knows where it ends"
        );
        assert!(
            unsure(Some(0), &["GET / HTTP/1.1\r\n"], ""),
            "an end that only hyper sees"
        );
    }

    #[test]
    fn what_is_left_of_a_body_is_no_head() {
        let mut framing = Framing::default();
        framing.read(HEAD.as_bytes());
        framing.begin(Some(4));
        framing.end();
        assert!(!framing.read(b"bo"));
        assert!(!framing.read(b"dy"));
        assert!(framing.read(b"G"));
        framing.read(b"ET / HTTP/1.1\r\n\r\n");
        framing.begin(Some(0));
        framing.end();
        assert!(!framing.unsure());
    }
}

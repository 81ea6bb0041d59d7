//! HTTP/2 as a hostile client writes it: frame by frame (RFC 9113), with headers that HPACK leaves
//! as they are (RFC 7541).

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// The preface, and an empty SETTINGS frame.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// The most bytes of a frame that a server has to take.
const FRAME: usize = 16_384;

/// A frame of a stream.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a frame's length")
        .to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header that no table remembers (RFC 7541, section 6.2.2).
pub(crate) fn literal(name: &str, value: &str) -> Vec<u8> {
    [vec![0], string(name), string(value)].concat()
}

/// A header that the dynamic table remembers (RFC 7541, section 6.2.1); index 62 repeats it.
pub(crate) fn remembered(name: &str, value: &str) -> Vec<u8> {
    [vec![0x40], string(name), string(value)].concat()
}

/// One byte that stands for the header that was remembered last.
pub(crate) const AGAIN: u8 = 0xbe;

/// SETTINGS by which the server may send no byte of a body.
pub(crate) fn no_window() -> Vec<u8> {
    // SETTINGS_INITIAL_WINDOW_SIZE is 4 (RFC 9113, section 6.5.2).
    frame(4, 0, 0, &[0, 4, 0, 0, 0, 0])
}

/// `POST` of this path.
pub(crate) fn post(path: &str) -> Vec<u8> {
    // Indexed: `:method: POST` and `:scheme: http`.
    [
        vec![0x83, 0x86],
        literal(":path", path),
        literal(":authority", "gate"),
    ]
    .concat()
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.len();
    if rest < 127 {
        bytes.push(u8::try_from(rest).expect("seven bits"));
    } else {
        bytes.push(127);
        rest -= 127;
        while rest >= 128 {
            bytes.push(u8::try_from(rest % 128).expect("seven bits") | 128);
            rest /= 128;
        }
        bytes.push(u8::try_from(rest).expect("seven bits"));
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// The head of a request without its end: its body does not come.
pub(crate) fn head(stream: u32, block: &[u8]) -> Vec<u8> {
    pieces(stream, block, true)
}

/// A header block that does not end.
pub(crate) fn endless_head(stream: u32, block: &[u8]) -> Vec<u8> {
    pieces(stream, block, false)
}

fn pieces(stream: u32, block: &[u8], ends: bool) -> Vec<u8> {
    let last = block.chunks(FRAME).count() - 1;
    let frames = block.chunks(FRAME).enumerate().map(|(number, piece)| {
        let kind = if number == 0 { HEADERS } else { CONTINUATION };
        let flags = if ends && number == last {
            END_HEADERS
        } else {
            0
        };
        frame(kind, flags, stream, piece)
    });
    frames.collect::<Vec<_>>().concat()
}

/// A connection that has said hello and then these bytes, which the server may not have taken whole.
pub(crate) async fn connect(address: SocketAddr, bytes: &[u8]) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&[HELLO, bytes].concat()).await?;
    Ok(stream)
}

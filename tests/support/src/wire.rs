//! A peer made by hand: it writes and reads frames byte by byte, and keeps no rule that a test
//! does not keep for it. (No HTTP/2 library would send most of this.)

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
    pub const PRIORITY_UPDATE: u8 = 16;
}

pub mod flag {
    pub const END_STREAM: u8 = 1;
    pub const ACK: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
}

/// RFC 9113 §7.
pub mod code {
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const SETTINGS_TIMEOUT: u32 = 4;
    pub const STREAM_CLOSED: u32 = 5;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn write(&self, out: &mut BytesMut) {
        out.extend_from_slice(&frame(self.kind, self.flags, self.stream, &self.payload));
    }

    /// The first frame of what has arrived, if all of it has (RFC 9113 §4.1).
    pub fn take(inbox: &mut BytesMut) -> Option<Self> {
        let head = inbox.first_chunk::<9>()?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        if inbox.len() < 9 + len {
            return None;
        }
        let head = inbox.split_to(9);
        Some(Self {
            kind: head[3],
            flags: head[4],
            stream: (&head[5..]).get_u32(),
            payload: inbox.split_to(len).to_vec(),
        })
    }

    /// RST_STREAM's and GOAWAY's error code.
    pub fn code(&self) -> u32 {
        let at = if self.kind == kind::GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, kind::DATA | kind::HEADERS) && self.flags & flag::END_STREAM != 0
    }

    fn is_ack_of(&self, kind: u8) -> bool {
        self.kind == kind && self.flags & flag::ACK != 0
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (id, value) in settings {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    }
    frame(kind::SETTINGS, 0, 0, &payload)
}

pub fn headers(stream: u32, block: &[u8], end: bool) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS | u8::from(end), stream, block)
}

pub fn data(stream: u32, payload: &[u8], end: bool) -> Vec<u8> {
    frame(kind::DATA, u8::from(end), stream, payload)
}

pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

pub fn go_away(last: u32, code: u32) -> Vec<u8> {
    frame(kind::GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// A header block that every decoder reads alike: literals, neither indexed nor Huffman-coded.
pub fn block<V: AsRef<[u8]>>(fields: &[(&str, V)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        literal(0, name, value, &mut out);
    }
    out
}

/// One field; `form` 0x40 puts it into the dynamic table (RFC 7541 §6.2).
pub fn literal<V>(form: u8, name: &str, value: &V, out: &mut Vec<u8>)
where
    V: AsRef<[u8]> + ?Sized,
{
    out.push(form);
    for bytes in [name.as_bytes(), value.as_ref()] {
        let mut len = bytes.len();
        if len < 127 {
            out.push(len as u8);
        } else {
            out.push(127);
            len -= 127;
            while len >= 128 {
                out.push(len as u8 & 127 | 128);
                len >>= 7;
            }
            out.push(len as u8);
        }
        out.extend_from_slice(bytes);
    }
}

/// A request's header block.
pub fn request(path: &str) -> Vec<u8> {
    request_with(path, &[])
}

pub fn request_with(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    fields.extend_from_slice(more);
    block(&fields)
}

/// A gRPC message, not compressed.
pub fn message(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out
}

pub struct Peer<T> {
    pub io: T,
    inbox: BytesMut,
    /// Came while it was still waiting for the acknowledgement.
    early: VecDeque<Frame>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Peer<T> {
    /// Says nothing yet.
    pub fn new(io: T) -> Self {
        Self { io, inbox: BytesMut::new(), early: VecDeque::new() }
    }

    /// A client that has said hello, and acknowledged the server's SETTINGS.
    pub async fn client(io: T, with: &[(u16, u32)]) -> Self {
        let mut peer = Self::new(io);
        peer.send(PREFACE).await;
        peer.send(&settings(with)).await;
        peer.shake().await;
        peer
    }

    /// A server that has said hello, and acknowledged the client's SETTINGS.
    pub async fn server(io: T, with: &[(u16, u32)]) -> Self {
        let mut peer = Self::new(io);
        let mut preface = [0; PREFACE.len()];
        peer.io.read_exact(&mut preface).await.unwrap();
        assert_eq!(preface, PREFACE);
        peer.send(&settings(with)).await;
        peer.shake().await;
        peer
    }

    /// Until both sides' SETTINGS are acknowledged.
    pub async fn shake(&mut self) {
        let mut early = VecDeque::new();
        let (mut theirs, mut acknowledged) = (false, false);
        while !(theirs && acknowledged) {
            let frame = self.next().await.expect("no handshake");
            if frame.is_ack_of(kind::SETTINGS) {
                acknowledged = true;
            } else if frame.kind == kind::SETTINGS {
                theirs = true;
                self.send(&self::frame(kind::SETTINGS, flag::ACK, 0, &[])).await;
            } else {
                early.push_back(frame);
            }
        }
        self.early = early;
    }

    /// The other end must take it.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.unwrap();
    }

    /// The other end may be gone.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.io.write_all(bytes).await
    }

    /// The next frame; `None` after the other end has closed.
    pub async fn next(&mut self) -> Option<Frame> {
        if let Some(frame) = self.early.pop_front() {
            return Some(frame);
        }
        loop {
            if let Some(frame) = Frame::take(&mut self.inbox) {
                return Some(frame);
            }
            if !matches!(self.io.read_buf(&mut self.inbox).await, Ok(1..)) {
                return None;
            }
        }
    }

    /// The first frame that is looked for; all before it are thrown away.
    pub async fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        let mut seen = Vec::new();
        while let Some(frame) = self.next().await {
            if wanted(&frame) {
                return frame;
            }
            seen.push((frame.kind, frame.stream));
            seen.truncate(20);
        }
        panic!("closed before it came; first (kind, stream) seen: {seen:?}");
    }

    /// Until the answer to a PING: everything sent before has been dealt with.
    pub async fn sync(&mut self) {
        self.send(&frame(kind::PING, 0, 0, b"are you ")).await;
        self.until(|frame| frame.is_ack_of(kind::PING)).await;
    }

    /// The error code of the GOAWAY that must come before the other end closes.
    pub async fn until_go_away(&mut self) -> u32 {
        self.until(|frame| frame.kind == kind::GOAWAY).await.code()
    }

    /// Sends `bytes` again and again, at most `times`, and reads what is answered meanwhile, until
    /// the other end has had enough. What it says then is returned.
    pub async fn flood(self, times: usize, mut bytes: impl FnMut(usize) -> Vec<u8>) -> Option<u32> {
        let (read, mut write) = tokio::io::split(self.io);
        let writing = async {
            for time in 0..times {
                if write.write_all(&bytes(time)).await.is_err() {
                    return;
                }
            }
            // It has swallowed everything; a hang-up ends the reading below.
            let _ = write.shutdown().await;
        };
        let io = tokio::io::join(read, tokio::io::sink());
        let mut reader = Peer { io, inbox: self.inbox, early: self.early };
        let reading = async {
            while let Some(frame) = reader.next().await {
                if frame.kind == kind::GOAWAY {
                    return Some(frame.code());
                }
            }
            None
        };
        tokio::join!(writing, reading).1
    }
}

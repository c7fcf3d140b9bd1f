//! A peer that writes and reads frames byte by byte, and only follows the rules that a test makes
//! it follow. No HTTP/2 library would send most of these frames.

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

/// The error codes of RFC 9113 §7.
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

    /// Returns the first frame of the received bytes, if it is complete (RFC 9113 §4.1).
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

    /// Returns the error code of RST_STREAM or GOAWAY.
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

/// Returns a header block of literals that are neither indexed nor Huffman-coded, so that the
/// decoder's state does not matter.
pub fn block<V: AsRef<[u8]>>(fields: &[(&str, V)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        literal(0, name, value, &mut out);
    }
    out
}

/// Returns one field. With `form` 0x40 it is added to the dynamic table (RFC 7541 §6.2).
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

/// Returns the header block of a request.
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

/// Returns a gRPC message that is not compressed.
pub fn message(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out
}

pub struct Peer<T> {
    pub io: T,
    inbox: BytesMut,
    /// Frames that came before the acknowledgement.
    early: VecDeque<Frame>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Peer<T> {
    /// Returns a peer that has not sent anything yet.
    pub fn new(io: T) -> Self {
        Self { io, inbox: BytesMut::new(), early: VecDeque::new() }
    }

    /// Returns a client that has finished the handshake: it has sent its preface and SETTINGS, and
    /// acknowledged the server's.
    pub async fn client(io: T, with: &[(u16, u32)]) -> Self {
        let mut peer = Self::new(io);
        peer.send(PREFACE).await;
        peer.send(&settings(with)).await;
        peer.shake().await;
        peer
    }

    /// Returns a server that has finished the handshake: it has sent its SETTINGS, and acknowledged
    /// the client's.
    pub async fn server(io: T, with: &[(u16, u32)]) -> Self {
        let mut peer = Self::new(io);
        let mut preface = [0; PREFACE.len()];
        peer.io.read_exact(&mut preface).await.unwrap();
        assert_eq!(preface, PREFACE);
        peer.send(&settings(with)).await;
        peer.shake().await;
        peer
    }

    /// Reads until both ends' SETTINGS are acknowledged.
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

    /// Sends bytes, which the other end must accept.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).await.unwrap();
    }

    /// Sends bytes to an end that may have closed already.
    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.io.write_all(bytes).await
    }

    /// Sends a body and its end as the stream's window allows, which is the default one at first.
    /// Drops all frames but those that widen the window.
    pub async fn send_body(&mut self, stream: u32, body: &[u8]) {
        self.send_data(stream, body).await;
        self.send(&data(stream, &[], true)).await;
    }

    /// Does the same without the end.
    pub async fn send_data(&mut self, stream: u32, body: &[u8]) {
        let mut window = 65_535;
        for chunk in body.chunks(16_384) {
            while window < chunk.len() {
                let widens =
                    |frame: &Frame| (frame.kind, frame.stream) == (kind::WINDOW_UPDATE, stream);
                let update = self.until(widens).await;
                window += u32::from_be_bytes(update.payload[..].try_into().unwrap()) as usize;
            }
            self.send(&data(stream, chunk, false)).await;
            window -= chunk.len();
        }
    }

    /// Returns the next frame, or `None` after the other end has closed.
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

    /// Returns the first frame that fits, and drops those before it.
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

    /// Sends a PING and reads until its answer. Then the other end has handled everything that was
    /// sent before.
    pub async fn sync(&mut self) {
        self.send(&frame(kind::PING, 0, 0, b"are you ")).await;
        self.until(|frame| frame.is_ack_of(kind::PING)).await;
    }

    /// Returns the error code of the GOAWAY, which must come before the other end closes.
    pub async fn until_go_away(&mut self) -> u32 {
        self.until(|frame| frame.kind == kind::GOAWAY).await.code()
    }

    /// Sends `bytes` up to `times` times, and reads the answers meanwhile, until the other end
    /// sends a GOAWAY or closes. Returns the code of the GOAWAY.
    pub async fn flood(self, times: usize, mut bytes: impl FnMut(usize) -> Vec<u8>) -> Option<u32> {
        let (read, mut write) = tokio::io::split(self.io);
        let writing = async {
            for time in 0..times {
                if write.write_all(&bytes(time)).await.is_err() {
                    return;
                }
            }
            // The other end has accepted everything; its close ends the reading below.
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

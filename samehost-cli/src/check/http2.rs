//! Checks that the other end speaks HTTP/2: its first frame must be SETTINGS (RFC 9113 §3.4).

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::path::this_user;
use super::socket::Connection;
use super::{Broken, End, Steps, broken};

const STEP: &str = "HTTP/2";

/// The preface and an empty SETTINGS frame (RFC 9113 §3.4 and §6.5).
const CLIENT_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The length of a frame's header in bytes (RFC 9113 §4.1).
const FRAME_HEADER: usize = 9;

/// The longest payload of a first frame in bytes. A longer one means that the other end does not
/// speak HTTP/2.
const LONGEST: usize = 16_384;

const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

pub(super) async fn speak(
    mut stream: Box<dyn Connection>,
    patience: Duration,
    steps: &mut Steps,
) -> Result<(), End> {
    let mut received = Vec::new();
    // Even if the write fails, the server may have sent bytes before it closed the connection.
    let written = stream.write_all(CLIENT_PREFACE).await;
    let frame = timeout(patience, first_frame(&mut stream, &mut received)).await;
    match frame {
        Err(_) if received.is_empty() => Err(broken(
            STEP,
            format!("the server says nothing for {patience:?}"),
            "look whether it hangs, or is a server of something else that waits to be spoken to",
        )
        .into()),
        Err(_) | Ok(None) => {
            let error = written.err().map(|error| error.to_string());
            Err(not_http2(&received, error).into())
        }
        Ok(Some((SETTINGS, payload))) => {
            steps.good(STEP, format!("SETTINGS {}", settings(&payload)))?;
            Ok(())
        }
        Ok(Some((GOAWAY, payload))) => Err(goes_away(&payload).into()),
        Ok(Some(_)) => Err(not_http2(&received, None).into()),
    }
}

/// Returns the type and payload of the first frame. Returns `None` if the stream ends inside it, or
/// it is too long.
async fn first_frame(
    stream: &mut Box<dyn Connection>,
    received: &mut Vec<u8>,
) -> Option<(u8, Vec<u8>)> {
    loop {
        if let Some(head) = received.first_chunk::<FRAME_HEADER>() {
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let kind = head[3];
            if len > LONGEST {
                return None;
            }
            if let Some(payload) = received.get(FRAME_HEADER..FRAME_HEADER + len) {
                return Some((kind, payload.to_vec()));
            }
        }
        if !matches!(stream.read_buf(received).await, Ok(1..)) {
            return None;
        }
    }
}

fn not_http2(received: &[u8], error: Option<String>) -> Broken {
    let remedy = "check the address: this is not a gRPC server";
    if received.starts_with(b"HTTP/1") {
        return broken(STEP, "the server answers in HTTP/1", remedy);
    }
    // These bytes start a TLS alert or handshake record (RFC 8446 §5.1).
    if let [0x15 | 0x16, 0x03, ..] = received {
        return broken(
            STEP,
            "the server answers in TLS",
            "have it serve plain text here: a Unix socket needs no TLS",
        );
    }
    if received.is_empty() {
        let why = error.map_or(String::new(), |error| format!(" ({error})"));
        return broken(
            STEP,
            format!("the server closed the connection without a word{why}"),
            format!(
                "see its log: it may refuse {}, have too many connections, or speak something else",
                this_user()
            ),
        );
    }
    let start = String::from_utf8_lossy(&received[..received.len().min(40)]).into_owned();
    broken(STEP, format!("the server speaks something else: {start:?}"), remedy)
}

/// Describes a GOAWAY, which has the last stream, a code, and a text for people (RFC 9113 §6.8).
fn goes_away(payload: &[u8]) -> Broken {
    let text = String::from_utf8_lossy(payload.get(8..).unwrap_or_default()).into_owned();
    let code = payload
        .get(4..8)
        .map_or(0, |code| u32::from_be_bytes([code[0], code[1], code[2], code[3]]));
    broken(
        STEP,
        format!("the server turns the connection away: {text:?} (code {code})"),
        "see its log: it may have too many connections, or be about to stop",
    )
}

/// Returns `name value` for each known setting (RFC 9113 §6.5.2).
fn settings(payload: &[u8]) -> String {
    let names = [
        (1, "HEADER_TABLE_SIZE"),
        (2, "ENABLE_PUSH"),
        (3, "MAX_CONCURRENT_STREAMS"),
        (4, "INITIAL_WINDOW_SIZE"),
        (5, "MAX_FRAME_SIZE"),
        (6, "MAX_HEADER_LIST_SIZE"),
    ];
    let shown: Vec<_> = payload
        .as_chunks::<6>()
        .0
        .iter()
        .filter_map(|[a, b, value @ ..]| {
            let id = u16::from_be_bytes([*a, *b]);
            let name = names.iter().find(|(known, _)| *known == id)?.1;
            Some(format!("{name} {}", u32::from_be_bytes(*value)))
        })
        .collect();
    if shown.is_empty() { "without values".to_owned() } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_their_names() {
        let payload = [0, 3, 0, 0, 1, 0, 0, 5, 0, 0, 64, 0, 0xfe, 3, 0, 0, 0, 1];
        assert_eq!(settings(&payload), "MAX_CONCURRENT_STREAMS 256, MAX_FRAME_SIZE 16384");
        assert_eq!(settings(&[]), "without values");
    }
}

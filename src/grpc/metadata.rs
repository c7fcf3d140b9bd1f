//! Changes the metadata that peers send into the form that tonic reads. tonic panics at a
//! `grpc-status-details-bin` that is not base64. It loses the code and the text of a `grpc-message`
//! that is not UTF-8. It does not read binary values that are joined by commas.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;

use crate::http2::RequestHead;
use crate::throttle::Throttle;

const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Limits the log events of dropped values to this many in a second.
static DROPPED: Throttle = Throttle::new(10);

/// Returns a body's frame with its trailers, if it has them, [normalised](normalise).
pub(super) fn normal_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            normalise(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// Returns a request's head with its metadata [normalised](normalise).
pub(super) fn normal(mut head: Arc<RequestHead>) -> Arc<RequestHead> {
    if !is_normalised(&head.headers) {
        normalise(&mut Arc::make_mut(&mut head).headers);
    }
    head
}

/// Normalises the metadata that a peer has sent:
///
/// - Binary values that are joined by commas become several values (gRPC over HTTP/2,
///   Custom-Metadata). A value that is not base64 is dropped and logged.
/// - In a message that is not UTF-8 after decoding, U+FFFD replaces the parts that are not
///   (Responses: "implementations MUST NOT error or throw away the message").
pub(crate) fn normalise(headers: &mut HeaderMap) {
    if is_normalised(headers) {
        return;
    }
    let names: Vec<HeaderName> = headers.keys().filter(|name| is_binary(name)).cloned().collect();
    for name in names {
        if headers.get_all(&name).iter().any(|value| !is_normal(&name, value)) {
            normalise_binary(headers, name);
        }
    }
    if let Some(message) = headers.get_mut(GRPC_MESSAGE)
        && let Some(decodable) = decodable(message.as_bytes())
        && let Ok(decodable) = HeaderValue::try_from(decodable)
    {
        *message = decodable;
    }
}

/// Returns whether [`normalise`] has nothing to change.
#[inline]
pub(crate) fn is_normalised(headers: &HeaderMap) -> bool {
    headers.iter().all(|(name, value)| is_normal(name, value))
}

#[inline]
fn is_binary(name: &HeaderName) -> bool {
    name.as_str().ends_with("-bin")
}

#[inline]
fn is_normal(name: &HeaderName, value: &HeaderValue) -> bool {
    if is_binary(name) {
        return base64(value.as_bytes()).is_some_and(|end| end == Base64::Strict);
    }
    let value = value.as_bytes();
    *name != GRPC_MESSAGE || value.iter().all(|byte| byte.is_ascii() && *byte != b'%')
}

fn normalise_binary(headers: &mut HeaderMap, name: HeaderName) {
    let values: Vec<HeaderValue> = headers.get_all(&name).iter().cloned().collect();
    headers.remove(&name);
    for value in &values {
        for part in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            match strict(part) {
                Some(mut part) => {
                    part.set_sensitive(value.is_sensitive());
                    // The map was about as large before, so the value fits, except for very many
                    // short parts. Those that do not fit are dropped.
                    let _ = headers.try_append(name.clone(), part);
                }
                None => log_dropped(&name, part.len()),
            }
        }
    }
}

fn log_dropped(name: &HeaderName, bytes: usize) {
    if let Some(unlogged) = DROPPED.pass(Instant::now()) {
        tracing::warn!(%name, bytes, unlogged, "dropped a peer's binary value that is no base64");
    }
}

/// Whether every decoder accepts a base64 text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base64 {
    /// The text has no padding or the right padding, and no bits after the last byte.
    Strict,
    Sloppy,
}

/// Returns the kind of base64 (RFC 4648 §4) that a text is, or `None` if it is not base64.
fn base64(text: &[u8]) -> Option<Base64> {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let text = &text[..text.len() - padding];
    let Some((&last, rest)) = text.split_last() else {
        return Some(if padding == 0 { Base64::Strict } else { Base64::Sloppy });
    };
    if text.len() % 4 == 1 || !rest.iter().all(|byte| sextet(*byte).is_some()) {
        return None;
    }
    let unused = unused_bits(text.len());
    let is_strict = sextet(last)? & unused == 0 && padding <= (4 - text.len() % 4) % 4;
    Some(if is_strict { Base64::Strict } else { Base64::Sloppy })
}

/// Returns a mask of the bits of the last character that belong to no byte.
const fn unused_bits(characters: usize) -> u8 {
    match characters % 4 {
        2 => 0b1111,
        3 => 0b11,
        _ => 0,
    }
}

fn sextet(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

/// Returns the same bytes in base64 that every decoder accepts.
fn strict(text: &[u8]) -> Option<HeaderValue> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if base64(text)? == Base64::Strict {
        return HeaderValue::from_bytes(text).ok();
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let mut text = text[..text.len() - padding].to_vec();
    let unused = unused_bits(text.len());
    if let Some(last) = text.last_mut() {
        *last = ALPHABET[usize::from(sextet(*last)? & !unused)];
    }
    HeaderValue::try_from(text).ok()
}

/// If a percent-encoded message does not decode to UTF-8, returns one that does.
fn decodable(message: &[u8]) -> Option<String> {
    let mut decoded = Vec::with_capacity(message.len());
    let mut rest = message;
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = |at: usize| tail.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        rest = match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high << 4 | low) as u8);
                &tail[2..]
            }
            _ => {
                decoded.push(byte);
                tail
            }
        };
    }
    let text = match String::from_utf8(decoded) {
        Ok(_) => return None,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    Some(encoded)
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataMap;

    use super::*;

    fn normalised(name: &'static str, values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append("x-other", HeaderValue::from_static("%C3%28,AQI"));
        for value in values {
            headers.append(name, HeaderValue::from_bytes(value).unwrap());
        }
        normalise(&mut headers);
        assert_eq!(headers["x-other"], "%C3%28,AQI", "what is no binary value is left alone");
        headers
    }

    /// Returns the values as tonic decodes them.
    fn decoded(values: &[&[u8]]) -> Vec<Vec<u8>> {
        let metadata = MetadataMap::from_headers(normalised("x-bin", values));
        let values = metadata.get_all_bin("x-bin").iter();
        values.map(|value| value.to_bytes().expect("base64").to_vec()).collect()
    }

    #[test]
    fn joined_binary_values_are_several() {
        assert_eq!(decoded(&[b"AQI,AwQ"]), [[1, 2], [3, 4]]);
        assert_eq!(decoded(&[b"AQI=, AwQ=", b"BQY"]), [[1, 2], [3, 4], [5, 6]]);
        assert_eq!(decoded(&[b"AQI,"]), [vec![1, 2], vec![]]);
    }

    #[test]
    fn every_form_of_base64_is_read_and_what_is_none_is_dropped() {
        assert_eq!(decoded(&[b""]), [b""]);
        assert_eq!(decoded(&[b"AQI"]), [[1, 2]]);
        // The first has bits after the last byte; the others have wrong padding.
        assert_eq!(
            decoded(&[b"AQJ", b"AQI==", b"AQ=", b"=="]),
            [vec![1, 2], vec![1, 2], vec![1], vec![]]
        );
        for garbage in [&b"!"[..], b"A", b"AQI\xff", b"A=QI", b"AQI AwQ", b"AAAAA"] {
            assert!(decoded(&[garbage]).is_empty(), "{}", garbage.escape_ascii());
        }
        assert_eq!(decoded(&[b"!,AQI", b"AwQ"]), [[1, 2], [3, 4]]);
    }

    #[test]
    fn all_bytes_of_base64_are_as_tonic_has_them() {
        for byte in 0..=255u8 {
            let Ok(value) = HeaderValue::from_bytes(&[b'A', byte]) else { continue };
            let mut headers = HeaderMap::new();
            headers.insert("x-bin", value.clone());
            let metadata = MetadataMap::from_headers(headers);
            let tonic = metadata.get_bin("x-bin").and_then(|value| value.to_bytes().ok());
            let ours = base64(value.as_bytes()) == Some(Base64::Strict);
            assert_eq!(ours, tonic.is_some(), "{value:?}");
        }
    }

    #[test]
    fn a_message_keeps_what_is_decodable() {
        let message = |value: &[u8]| {
            let mut headers = normalised("grpc-message", &[value]);
            headers.insert("grpc-status", HeaderValue::from_static("3"));
            let status = tonic::Status::from_header_map(&headers).unwrap();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            status.message().to_owned()
        };
        assert_eq!(message(b"%C3%28 and 100%"), "\u{fffd}( and 100%");
        assert_eq!(message(b"caf\xe9%0a"), "caf\u{fffd}\n");
        assert_eq!(message("grüße %41%zz".as_bytes()), "grüße A%zz");
        assert_eq!(message(b"plain"), "plain");
    }
}

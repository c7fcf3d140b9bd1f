//! Header lists to be sent. Fields that HTTP/2 forbids are left out. A list that is larger than the
//! peer takes is cut down to the important fields.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::hpack::BlockEncoder;

/// The size of a field in a header list, beyond its bytes (RFC 9113 §6.5.2).
const OVERHEAD: usize = 32;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// RESOURCE_EXHAUSTED.
const TOO_LARGE: HeaderValue = HeaderValue::from_static("8");

/// A status message is not cut below this size to keep metadata. The metadata is dropped instead.
const SHORT_MESSAGE: usize = 256;

/// The end of a message that was cut.
const CUT: &[u8] = b"...";

/// Writes the fields that HTTP/2 allows, without spaces at the ends of their values.
#[inline]
pub(super) fn write<'a>(
    block: &mut BlockEncoder<'_>,
    fields: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>,
) {
    for (name, value) in fields {
        if is_allowed(name, value) {
            block.field(name.as_str().as_bytes(), trimmed(value.as_bytes()), value.is_sensitive());
        }
    }
}

/// Returns whether HTTP/2 allows the field in a message (RFC 9113 §8.2.2). Metadata and layers may
/// add other fields, for example of HTTP/1.1, for which a peer would reset the stream.
#[inline]
fn is_allowed(name: &HeaderName, value: &HeaderValue) -> bool {
    let name = name.as_str();
    match name.len() {
        2 => name != "te" || value == "trailers",
        7 => name != "upgrade",
        10 => name != "connection" && name != "keep-alive",
        16 => name != "proxy-connection",
        17 => name != "transfer-encoding",
        _ => true,
    }
}

/// Removes spaces and tabs from the ends of a value (RFC 9113 §8.2.1). A [`HeaderValue`] cannot
/// have other forbidden bytes.
#[inline]
fn trimmed(value: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    if value.first().is_some_and(is_space) || value.last().is_some_and(is_space) {
        return value.trim_ascii();
    }
    value
}

/// Returns the size as SETTINGS_MAX_HEADER_LIST_SIZE counts it (RFC 9113 §6.5.2).
pub(super) fn size<'a>(
    fields: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>,
) -> usize {
    fields.into_iter().map(|(name, value)| field_size(name.as_str(), value.len())).sum()
}

pub(super) const fn field_size(name: &str, value: usize) -> usize {
    name.len() + value + OVERHEAD
}

/// Returns the list with a gRPC status, cut down to `limit` bytes as far as possible. Details go
/// first, then most of the message, then metadata. The code stays, but a success whose metadata
/// does not fit becomes an error.
pub(super) fn cut(headers: &HeaderMap, limit: usize) -> HeaderMap {
    let Some(code) = headers.get(GRPC_STATUS) else {
        return headers.clone();
    };
    let mut rest = headers.clone();
    rest.remove(GRPC_DETAILS);
    let message = rest.remove(GRPC_MESSAGE);
    let wanted = message
        .as_ref()
        .map_or(0, |message| field_size(GRPC_MESSAGE.as_str(), message.len().min(SHORT_MESSAGE)));
    if size(&rest) + wanted > limit {
        if code == "0" {
            return refusal(headers, limit);
        }
        rest = status(headers, code.clone());
    }
    if let Some(message) = message {
        let room = limit.saturating_sub(size(&rest) + field_size(GRPC_MESSAGE.as_str(), 0));
        if let Some(message) = cut_message(&message, room) {
            rest.insert(GRPC_MESSAGE, message);
        }
    }
    rest
}

/// Returns whether a content type is `application/grpc`, with or without a subtype or parameters.
#[inline]
pub(crate) fn is_grpc_type(content_type: &HeaderValue) -> bool {
    let rest = content_type.as_bytes().strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

/// Returns whether this is the head of a gRPC response.
pub(super) fn are_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(is_grpc_type)
}

/// Returns a status to replace a response whose metadata is larger than the client takes.
pub(super) fn refusal(headers: &HeaderMap, limit: usize) -> HeaderMap {
    let mut status = status(headers, TOO_LARGE);
    let message = format!(
        "the response's metadata is larger than the {limit} bytes that the client takes: raise the \
                 channel's max_header_list_size"
    );
    if let Ok(message) = HeaderValue::try_from(message) {
        status.insert(GRPC_MESSAGE, message);
    }
    status
}

/// Returns a code alone, with the content type if there was one.
fn status(headers: &HeaderMap, code: HeaderValue) -> HeaderMap {
    let mut status = HeaderMap::with_capacity(3);
    if let Some(kind) = headers.get(header::CONTENT_TYPE) {
        status.insert(header::CONTENT_TYPE, kind.clone());
    }
    status.insert(GRPC_STATUS, code);
    status
}

/// Returns the beginning of a percent-encoded message, followed by dots. It cuts between
/// characters.
fn cut_message(message: &HeaderValue, room: usize) -> Option<HeaderValue> {
    let message = message.as_bytes();
    if message.len() <= room {
        return HeaderValue::from_bytes(message).ok();
    }
    let mut end = room.checked_sub(CUT.len())?;
    // The cut must not be within "%C3".
    if let Some(percent) = (1..=2).find(|back| end >= *back && message[end - back] == b'%') {
        end -= percent;
    }
    // It must not be before a byte that continues a character, percent-encoded or not.
    while end > 0 && continues(&message[end..]) {
        end -= if end >= 3 && message[end - 3] == b'%' { 3 } else { 1 };
    }
    HeaderValue::from_bytes(&[&message[..end], CUT].concat()).ok()
}

/// Returns whether the text begins with a byte 10xxxxxx of UTF-8, percent-encoded or not.
fn continues(text: &[u8]) -> bool {
    match text {
        [b'%', b'8' | b'9' | b'a' | b'A' | b'b' | b'B', ..] => true,
        [byte, ..] => byte & 0xc0 == 0x80,
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(fields: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn details_go_first_and_a_message_is_cut_before_metadata_is_dropped() {
        let long = "m".repeat(5_000);
        let headers = list(&[
            ("grpc-status", "3"),
            ("grpc-message", &long),
            ("grpc-status-details-bin", &"AAAA".repeat(1_000)),
            ("x-kept", "yes"),
        ]);
        let all = size(&headers);
        let without_details = cut(&headers, all - 1);
        assert!(!without_details.contains_key(GRPC_DETAILS));
        assert_eq!(without_details["grpc-message"], long);
        for limit in [300, 500, 1_000, 4_000] {
            let cut = cut(&headers, limit);
            assert!(size(&cut) <= limit, "{limit}: {cut:?}");
            assert_eq!(cut["grpc-status"], "3");
            let message = cut["grpc-message"].to_str().unwrap();
            assert!(message.starts_with("mmm") && message.ends_with("..."), "{message}");
            assert_eq!(cut.contains_key("x-kept"), limit > 400, "{limit}");
        }
        // If not even a code fits, a code is sent anyway: the limit is only advice.
        assert_eq!(cut(&headers, 0)["grpc-status"], "3");
    }

    #[test]
    fn a_success_without_its_metadata_is_none() {
        let headers = list(&[("grpc-status", "0"), ("x-result", &"r".repeat(1_000))]);
        assert_eq!(cut(&headers, 2_000)["x-result"].len(), 1_000);
        let cut = cut(&headers, 500);
        assert_eq!(cut["grpc-status"], "8");
        assert!(cut["grpc-message"].to_str().unwrap().contains("500 bytes"));
    }

    #[test]
    fn a_message_is_cut_between_characters() {
        for text in ["aé€😀".repeat(50), "a%C3%A9%E2%82%AC%f0%9f%98%80".repeat(20)] {
            let value = HeaderValue::from_bytes(text.as_bytes()).unwrap();
            for room in 3..text.len() {
                let cut = cut_message(&value, room).unwrap();
                assert!(cut.len() <= room);
                let kept = cut.as_bytes().strip_suffix(CUT).unwrap();
                let rest = &text.as_bytes()[kept.len()..];
                assert_eq!(kept, &text.as_bytes()[..kept.len()]);
                assert!(!continues(rest), "{room}");
                assert!(!kept.ends_with(b"%") && !kept[..].ends_with(b"%C"), "{room}");
            }
        }
        assert_eq!(cut_message(&HeaderValue::from_static("short"), 2), None);
    }
}

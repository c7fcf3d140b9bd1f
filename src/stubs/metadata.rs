//! Metadata between http's headers and tonic's, and the status in trailers.

use std::mem;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::grpc::{code_of, cut_off, field, is_normalised, normalise};

/// The content type in a message's head.
pub(super) const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// The fields that gRPC itself writes into a head, so that metadata must not have them. tonic has
/// the same list.
const RESERVED: [HeaderName; 5] = [
    header::TE,
    header::CONTENT_TYPE,
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-message-type"),
    HeaderName::from_static("grpc-status"),
];

/// Fails unless a request's messages are protobuf: the content type has no subtype, or `+proto`
/// (gRPC over HTTP/2, Requests).
///
/// # Errors
///
/// UNIMPLEMENTED if they are not.
pub(super) fn check_codec(headers: &HeaderMap) -> Result<(), Status> {
    let content_type = field(headers, &header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let Some(subtype) = content_type.and_then(|it| it.strip_prefix(b"application/grpc+")) else {
        return Ok(());
    };
    let end = subtype.iter().position(|byte| matches!(byte, b';' | b' '));
    let subtype = &subtype[..end.unwrap_or(subtype.len())];
    if subtype == b"proto" {
        return Ok(());
    }
    Err(Status::unimplemented(format!(
        "the request's messages are {}, and this service takes those of protobuf",
        subtype.escape_ascii()
    )))
}

/// Returns metadata as headers, without gRPC's own fields.
pub(super) fn headers(metadata: MetadataMap) -> HeaderMap {
    let mut headers = metadata.into_headers();
    if !headers.is_empty() {
        for name in &RESERVED {
            headers.remove(name);
        }
    }
    headers
}

/// Adds headers to metadata as tonic does: fields of the same name are replaced.
pub(super) fn merge(metadata: &mut MetadataMap, headers: HeaderMap) {
    metadata.as_mut().extend(headers);
}

/// Returns the status in headers or trailers, if there is one. Those of our channel are normalised
/// already, those of another channel may not be.
pub(super) fn status_in(headers: &HeaderMap) -> Option<Status> {
    if is_normalised(headers) {
        return Status::from_header_map(headers);
    }
    let mut headers = headers.clone();
    normalise(&mut headers);
    Status::from_header_map(&headers)
}

/// Takes the status out of the head of a response. It counts only if nothing follows the head (gRPC
/// over HTTP/2, Trailers-Only).
pub(crate) fn early_status(head: &mut HeaderMap) -> Option<Status> {
    field(head, &Status::GRPC_STATUS)?;
    let status = status_in(head);
    // If something follows, the head's status does not count.
    head.remove(Status::GRPC_STATUS);
    status
}

/// Returns the outcome of a call whose response has ended: by its trailers, or otherwise by its
/// HTTP status ("HTTP to gRPC Status Code Mapping" of the gRPC project). `is_cut_off` says that it has
/// ended inside a message, which counts unless its trailers tell another failure or no status.
pub(crate) fn outcome(
    trailers: Option<&HeaderMap>,
    http: StatusCode,
    is_cut_off: bool,
) -> Result<(), Status> {
    let success = || if is_cut_off { Err(cut_off()) } else { Ok(()) };
    let Some(trailers) = trailers else {
        return success().and(Err(without_status(http)));
    };
    if field(trailers, &Status::GRPC_STATUS).is_some_and(|code| code == "0") {
        return success();
    }
    match status_in(trailers) {
        Some(status) if status.code() == Code::Ok => success(),
        Some(status) => Err(status),
        None => Err(without_status(http)),
    }
}

/// Returns the status of a call whose response has none.
fn without_status(http: StatusCode) -> Status {
    if http == StatusCode::OK {
        return Status::unknown(
            "the response ended without a grpc-status: it may have been cut off on its way",
        );
    }
    Status::new(
        code_of(http),
        format!("the response has no grpc-status, and the HTTP status {http}"),
    )
}

/// Adds the metadata of a response's head to the status that the call failed with.
pub(crate) fn with_head(mut status: Status, head: HeaderMap) -> Status {
    let own = mem::take(status.metadata_mut()).into_headers();
    let metadata = status.metadata_mut();
    merge(metadata, head);
    merge(metadata, own);
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_of_another_channel_cannot_break_a_status() {
        let details_of = |details: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", HeaderValue::from_static("5"));
            headers.insert("grpc-status-details-bin", HeaderValue::from_static(details));
            let status = status_in(&headers).unwrap();
            assert_eq!(status.code(), Code::NotFound);
            status.details().to_vec()
        };
        for text in ["!", "A", "A===", "=", "AA-_", "AA A", "AAAA="] {
            details_of(text);
        }
        assert_eq!(details_of("!"), b"");
        assert_eq!(details_of("AQI"), [1, 2]);
        assert_eq!(details_of("AQJ"), [1, 2], "the bits after the last byte do not count");
    }

    #[test]
    fn a_heads_metadata_does_not_replace_the_trailers() {
        let mut status = Status::not_found("none");
        status.metadata_mut().insert("both", "trailers".parse().unwrap());
        let mut head = HeaderMap::new();
        head.insert("both", HeaderValue::from_static("head"));
        head.insert("one", HeaderValue::from_static("head"));
        let status = with_head(status, head);
        assert_eq!(status.metadata().get("both").unwrap(), "trailers");
        assert_eq!(status.metadata().get("one").unwrap(), "head");
    }
}

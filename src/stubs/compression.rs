//! Compression of messages: which kinds there are, how the two ends agree on one, and the
//! compression itself.

use std::fmt;
use std::io::{self, Read};

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::Status;
use tonic::codec::CompressionEncoding;

use super::limit::Limit;
use crate::grpc::field;

pub(super) const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
pub(super) const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// The window that every zstd decoder should support (RFC 8878 §3.1.1.1.2), as a power of two.
#[cfg(feature = "zstd")]
const ZSTD_WINDOW_LOG: u32 = 23;

/// The kinds of compression that an end uses, in the order in which they were added.
#[derive(Clone, Debug, Default)]
pub(super) struct Encodings(Vec<CompressionEncoding>);

impl Encodings {
    pub(super) fn add(&mut self, encoding: CompressionEncoding) {
        if !self.0.contains(&encoding) {
            self.0.push(encoding);
        }
    }

    /// Returns the value of `grpc-accept-encoding`, or `None` if there is no compression.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        if self.0.is_empty() {
            return None;
        }
        let mut names: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        names.push("identity".to_owned());
        HeaderValue::try_from(names.join(",")).ok()
    }

    /// Returns the kind of this name.
    fn named(&self, name: &[u8]) -> Option<CompressionEncoding> {
        self.0.iter().copied().find(|encoding| encoding.to_string().as_bytes() == name)
    }

    /// Returns the first kind that the peer accepts, in the order of the peer's
    /// `grpc-accept-encoding`.
    pub(super) fn accepted_by(&self, headers: &HeaderMap) -> Option<CompressionEncoding> {
        if self.0.is_empty() {
            return None;
        }
        let accepted = field(headers, &GRPC_ACCEPT_ENCODING)?.as_bytes();
        accepted.split(|byte| *byte == b',').find_map(|name| self.named(name.trim_ascii()))
    }

    /// Returns what `grpc-encoding` says about messages that arrive.
    pub(super) fn received(&self, headers: &HeaderMap) -> ReceivedEncoding {
        match field(headers, &GRPC_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => ReceivedEncoding::Identity,
            Some(name) => match self.named(name) {
                Some(encoding) => ReceivedEncoding::Compressed(encoding),
                None => ReceivedEncoding::Unknown(name.escape_ascii().to_string()),
            },
        }
    }
}

/// How messages that arrive may be compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReceivedEncoding {
    Identity,
    Compressed(CompressionEncoding),
    /// They may be compressed in a way that this end does not accept.
    Unknown(String),
}

impl ReceivedEncoding {
    /// For a server: fails with UNIMPLEMENTED if this end does not accept the encoding, and names
    /// the accepted ones ("Compression", compression.md of the gRPC project).
    pub(super) fn or_unimplemented(self, accepted: &Encodings) -> Result<Self, Status> {
        let Self::Unknown(name) = self else { return Ok(self) };
        let mut status = Status::unimplemented(format!(
            "the request is compressed with {name}, which this service does not accept \
             (accept_compressed of the generated server)"
        ));
        let accepted = accepted.header().unwrap_or(HeaderValue::from_static("identity"));
        status.metadata_mut().as_mut().insert(GRPC_ACCEPT_ENCODING, accepted);
        Err(status)
    }
}

/// Returns the encoding if this crate can do it.
///
/// # Panics
///
/// If its feature is off, tonic may still know it by the feature of another crate.
pub(super) fn check(encoding: CompressionEncoding) -> CompressionEncoding {
    let known = match encoding {
        #[cfg(feature = "gzip")]
        CompressionEncoding::Gzip => true,
        #[cfg(feature = "deflate")]
        CompressionEncoding::Deflate => true,
        #[cfg(feature = "zstd")]
        CompressionEncoding::Zstd => true,
        #[allow(unreachable_patterns, reason = "not all features may be on")]
        _ => false,
    };
    assert!(known, "turn on the feature `{encoding}` of the crate samehost to compress with it");
    encoding
}

/// Appends the compressed message to `out`. Returns its size in bytes.
#[cfg_attr(
    not(any(feature = "gzip", feature = "deflate", feature = "zstd")),
    allow(unused_variables, clippy::ptr_arg, reason = "there is nothing that compresses")
)]
pub(super) fn compress(
    encoding: CompressionEncoding,
    message: &[u8],
    out: &mut Vec<u8>,
) -> io::Result<usize> {
    match encoding {
        #[cfg(feature = "gzip")]
        CompressionEncoding::Gzip => {
            flate2::read::GzEncoder::new(message, flate2::Compression::default()).read_to_end(out)
        }
        #[cfg(feature = "deflate")]
        CompressionEncoding::Deflate => {
            flate2::read::ZlibEncoder::new(message, flate2::Compression::default()).read_to_end(out)
        }
        #[cfg(feature = "zstd")]
        CompressionEncoding::Zstd => {
            zstd::stream::read::Encoder::new(message, zstd::DEFAULT_COMPRESSION_LEVEL)?
                .read_to_end(out)
        }
        #[allow(unreachable_patterns, reason = "not all features may be on")]
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Returns the decompressed message, which `limit` allows. A larger one is not decompressed
/// further than that.
#[cfg_attr(
    not(any(feature = "gzip", feature = "deflate", feature = "zstd")),
    allow(unused_variables, reason = "there is nothing that decompresses")
)]
pub(super) fn decompress(
    encoding: CompressionEncoding,
    compressed: &[u8],
    limit: Limit,
) -> Result<Vec<u8>, Status> {
    let failed = |error| cannot_decompress(&encoding, &error);
    match encoding {
        #[cfg(feature = "gzip")]
        CompressionEncoding::Gzip => {
            read_limited(flate2::read::GzDecoder::new(compressed), limit, failed)
        }
        #[cfg(feature = "deflate")]
        CompressionEncoding::Deflate => {
            read_limited(flate2::read::ZlibDecoder::new(compressed), limit, failed)
        }
        #[cfg(feature = "zstd")]
        CompressionEncoding::Zstd => {
            let size = zstd::zstd_safe::get_frame_content_size(compressed).ok().flatten();
            if size.zip(u64::try_from(limit.bytes).ok()).is_some_and(|(size, limit)| size > limit) {
                return Err(limit.decompressed_too_large());
            }
            // The decoder reserves a window of the size that the message requests.
            let limit_log = usize::BITS - limit.bytes.leading_zeros();
            let window_log = limit_log.clamp(ZSTD_WINDOW_LOG, 31);
            let largest_window =
                format!("zstd with a window of up to {} MiB", 1 << (window_log - 20));
            let failed = |error| cannot_decompress(&largest_window, &error);
            let mut decoder = zstd::stream::read::Decoder::new(compressed).map_err(failed)?;
            decoder.window_log_max(window_log).map_err(failed)?;
            read_limited(decoder, limit, failed)
        }
        #[allow(unreachable_patterns, reason = "not all features may be on")]
        _ => Err(failed(io::ErrorKind::Unsupported.into())),
    }
}

fn cannot_decompress(encoding: &dyn fmt::Display, error: &io::Error) -> Status {
    Status::internal(format!("a message cannot be decompressed ({encoding}): {error}"))
}

#[cfg_attr(
    not(any(feature = "gzip", feature = "deflate", feature = "zstd")),
    allow(dead_code, reason = "there is nothing that decompresses")
)]
fn read_limited(
    decoder: impl Read,
    limit: Limit,
    failed: impl Fn(io::Error) -> Status,
) -> Result<Vec<u8>, Status> {
    let mut message = Vec::new();
    let one_more = u64::try_from(limit.bytes).map_or(u64::MAX, |limit| limit.saturating_add(1));
    decoder.take(one_more).read_to_end(&mut message).map_err(failed)?;
    if message.len() > limit.bytes {
        return Err(limit.decompressed_too_large());
    }
    // It grew by doubling, and a handler may hold on to it.
    message.shrink_to_fit();
    Ok(message)
}

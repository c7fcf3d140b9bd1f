//! Heads of messages: turns decoded fields into a request, a response or trailers by the rules of
//! RFC 9113 §8. Streams and frames do not occur here.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::fields::is_grpc_type;
use super::hpack::{Field, Name, Pseudo};

/// A request's pseudo-headers and headers. Identical requests may share one.
#[derive(Clone, Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    pub(crate) scheme: Scheme,
    /// The value as it came. It is not checked if [`any_authority`](super::Config::any_authority)
    /// is set.
    pub(crate) authority: Option<Bytes>,
    pub(crate) path: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) content_length: Option<u64>,
    /// How much memory it takes in total, in bytes.
    pub(super) size: u32,
}

/// A response's status and headers. Identical responses may share one.
#[derive(Clone, Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) content_length: Option<u64>,
    usual: OnceLock<UsualResponse>,
}

/// What a caller got of a response, for those with the same head and the same trailers.
#[derive(Clone, Debug)]
struct UsualResponse {
    // They are kept, so that their address is not that of other trailers.
    trailers: Arc<HeaderMap>,
    metadata: HeaderMap,
}

impl ResponseHead {
    /// Returns what [`remember`](Self::remember) was given for these trailers.
    #[inline]
    pub(crate) fn usual(&self, trailers: &Arc<HeaderMap>) -> Option<&HeaderMap> {
        let usual = self.usual.get()?;
        Arc::ptr_eq(&usual.trailers, trailers).then_some(&usual.metadata)
    }

    /// Remembers what a caller gets of a response with this head and these trailers. Only the first
    /// trailers are remembered.
    pub(crate) fn remember(&self, trailers: Arc<HeaderMap>, metadata: HeaderMap) {
        let _ = self.usual.set(UsualResponse { trailers, metadata });
    }
}

#[derive(Clone, Debug)]
pub(super) enum Head {
    Request(Arc<RequestHead>),
    Response(Arc<ResponseHead>),
    Trailers(Arc<HeaderMap>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadKind {
    Request,
    Response,
    Trailers,
}

/// Why fields are not a valid head. This is a stream error, not a connection error (RFC 9113
/// §8.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    /// RFC 9113 §8.1.1.
    Malformed(&'static str),
    /// The list exceeds the limit. `foreign` means that its method or its content type is not gRPC's.
    TooLarge { foreign: bool },
    /// A well-formed CONNECT (§8.5). A gRPC server does not answer it.
    Connect,
}

impl Head {
    /// Returns a copy that shares only the values with this head, and of which copies take little.
    pub(super) fn copy(&self) -> Self {
        match self {
            Self::Request(head) => {
                let mut head = RequestHead::clone(head);
                use_static_values(&mut head.headers);
                Self::Request(Arc::new(head))
            }
            Self::Response(head) => {
                let mut head = ResponseHead::clone(head);
                use_static_values(&mut head.headers);
                Self::Response(Arc::new(head))
            }
            Self::Trailers(headers) => {
                let mut headers = HeaderMap::clone(headers);
                use_static_values(&mut headers);
                Self::Trailers(Arc::new(headers))
            }
        }
    }

    pub(super) fn fields(&self) -> usize {
        match self {
            Self::Request(head) => head.headers.len(),
            Self::Response(head) => head.headers.len(),
            Self::Trailers(headers) => headers.len(),
        }
    }

    /// Returns how much memory its fields take, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Request(head) => head.size as usize,
            Self::Response(head) => fields_size(&head.headers),
            Self::Trailers(headers) => fields_size(headers),
        }
    }

    pub(super) fn kind(&self) -> HeadKind {
        match self {
            Self::Request(_) => HeadKind::Request,
            Self::Response(_) => HeadKind::Response,
            Self::Trailers(_) => HeadKind::Trailers,
        }
    }
}

/// Collects a block's fields.
#[derive(Debug)]
pub(super) struct HeadBuilder {
    kind: HeadKind,
    any_authority: bool,
    /// The limit on the header list.
    limit: usize,
    /// How much of the limit is left.
    room: usize,
    too_large: bool,
    /// How many fields came after the first error.
    beyond: u32,
    /// Whether a content type was read that is not gRPC's.
    foreign: bool,
    malformed: Option<&'static str>,
    /// Whether a regular field was seen. No pseudo-header may follow it (§8.3).
    regular: bool,
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Bytes>,
    path: Option<PathAndQuery>,
    status: Option<StatusCode>,
    headers: HeaderMap,
    content_length: Option<u64>,
}

impl HeadBuilder {
    pub(super) fn new(kind: HeadKind, limit: usize, any_authority: bool) -> Self {
        Self {
            kind,
            any_authority,
            limit,
            room: limit,
            too_large: false,
            beyond: 0,
            foreign: false,
            malformed: None,
            regular: false,
            method: None,
            scheme: None,
            authority: None,
            path: None,
            status: None,
            headers: HeaderMap::new(),
            content_length: None,
        }
    }

    /// Adds the next field. After the first error, the rest is only decoded. If the list is too
    /// large, the method and the content type still decide how it is refused.
    pub(super) fn field(&mut self, field: &Field) {
        if self.too_large || self.malformed.is_some() {
            self.beyond = self.beyond.saturating_add(1);
            match field {
                Field::Header(header::CONTENT_TYPE, value) => self.content_type(value),
                Field::Pseudo(Pseudo::Method, value) if self.method.is_none() => {
                    self.method = Method::from_bytes(value.as_bytes()).ok();
                }
                _ => {}
            }
            return;
        }
        let Some(room) = self.room.checked_sub(field.size()) else {
            self.too_large = true;
            self.headers = HeaderMap::new();
            return;
        };
        self.room = room;
        let result = match field {
            Field::Header(name, value) => self.header(name, value),
            Field::Pseudo(name, value) => self.pseudo(*name, value),
            Field::Malformed { name, value } => self.malformed(name, value),
        };
        if let Err(why) = result {
            self.malformed = Some(why);
        }
    }

    fn header(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), &'static str> {
        self.regular = true;
        match *name {
            // HTTP/2 does not allow connection-specific fields (§8.2.2).
            header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE => {
                return Err("a connection-specific header field");
            }
            header::TE if value != "trailers" => return Err("TE is not \"trailers\""),
            header::CONTENT_LENGTH => self.content_length(value)?,
            header::CONTENT_TYPE => self.content_type(value),
            _ if matches!(name.as_str(), "proxy-connection" | "keep-alive") => {
                return Err("a connection-specific header field");
            }
            _ => {}
        }
        match self.headers.try_append(name, value.clone()) {
            Ok(_) => Ok(()),
            Err(_) => {
                self.too_large = true;
                Ok(())
            }
        }
    }

    fn content_type(&mut self, value: &HeaderValue) {
        self.foreign = !is_grpc_type(value);
    }

    fn content_length(&mut self, value: &HeaderValue) -> Result<(), &'static str> {
        let digits = value.as_bytes();
        if digits.is_empty() || digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
            return Err("content-length is no number");
        }
        let length = digits.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        if self.content_length.is_some_and(|earlier| earlier != length) {
            return Err("two different content-lengths");
        }
        self.content_length = Some(length);
        Ok(())
    }

    fn pseudo(&mut self, name: Pseudo, value: &HeaderValue) -> Result<(), &'static str> {
        if self.regular {
            return Err("a pseudo-header after a header");
        }
        let value = value.as_bytes();
        match (self.kind, name) {
            (HeadKind::Request, Pseudo::Method) => {
                let method = Method::from_bytes(value).map_err(|_| "not a method")?;
                once(&mut self.method, method)
            }
            (HeadKind::Request, Pseudo::Scheme) => {
                // RFC 3986 §3.1: a scheme begins with a letter.
                if !value.first().is_some_and(u8::is_ascii_alphabetic) {
                    return Err("not a scheme");
                }
                let scheme = Scheme::try_from(value).map_err(|_| "not a scheme")?;
                once(&mut self.scheme, scheme)
            }
            (HeadKind::Request, Pseudo::Authority) => {
                once(&mut self.authority, Bytes::copy_from_slice(value))
            }
            (HeadKind::Request, Pseudo::Path) => {
                // §8.3.1: a path is never empty, and `*` is only for OPTIONS, which is checked at
                // the end. A fragment is not part of it (RFC 3986 §3.5).
                if !matches!(value.first(), Some(b'/' | b'*')) || value.contains(&b'#') {
                    return Err("not a path");
                }
                let path = PathAndQuery::try_from(value).map_err(|_| "not a path")?;
                once(&mut self.path, path)
            }
            (HeadKind::Response, Pseudo::Status) => {
                let status = StatusCode::from_bytes(value).map_err(|_| "not a status")?;
                once(&mut self.status, status)
            }
            (HeadKind::Trailers, _) => Err("a pseudo-header in trailers"),
            _ => Err("a pseudo-header that does not belong here"),
        }
    }

    fn malformed(&mut self, name: &Name, value: &Bytes) -> Result<(), &'static str> {
        // Over a Unix socket any bytes are accepted: clients put the socket's path there.
        let authority = *name == Name::Pseudo(Pseudo::Authority);
        if authority && self.any_authority && self.kind == HeadKind::Request {
            if self.regular {
                return Err("a pseudo-header after a header");
            }
            return once(&mut self.authority, value.clone());
        }
        Err("a header field of forbidden bytes")
    }

    /// Returns how many fields came after the first error. They were decoded in vain.
    pub(super) fn beyond(&self) -> u32 {
        self.beyond
    }

    pub(super) fn finish(self) -> Result<Head, HeadError> {
        if let Some(why) = self.malformed {
            return Err(HeadError::Malformed(why));
        }
        if self.too_large {
            // Each call of gRPC is a POST. A method that could not be read tells nothing.
            let is_call = self.method.is_none_or(|method| method == Method::POST);
            return Err(HeadError::TooLarge { foreign: self.foreign || !is_call });
        }
        match self.kind {
            HeadKind::Request => self.request(),
            HeadKind::Response => {
                let status = self.status.ok_or(HeadError::Malformed("no :status"))?;
                // Only HTTP/1.1 has a switch of protocols (§8.6).
                if status == StatusCode::SWITCHING_PROTOCOLS {
                    return Err(HeadError::Malformed("status 101"));
                }
                Ok(Head::Response(Arc::new(ResponseHead {
                    status,
                    headers: self.headers,
                    content_length: self.content_length,
                    usual: OnceLock::new(),
                })))
            }
            HeadKind::Trailers => Ok(Head::Trailers(Arc::new(self.headers))),
        }
    }

    fn request(self) -> Result<Head, HeadError> {
        let method = self.method.ok_or(HeadError::Malformed("no :method"))?;
        if method == Method::CONNECT {
            // §8.5
            return Err(
                if self.scheme.is_none() && self.path.is_none() && self.authority.is_some() {
                    HeadError::Connect
                } else {
                    HeadError::Malformed("CONNECT with :scheme or :path, or without :authority")
                },
            );
        }
        let scheme = self.scheme.ok_or(HeadError::Malformed("no :scheme"))?;
        let path = self.path.ok_or(HeadError::Malformed("no :path"))?;
        if path.as_str().starts_with('*') && (path != "*" || method != Method::OPTIONS) {
            return Err(HeadError::Malformed("not a path"));
        }
        if !self.any_authority {
            check_authority(self.authority.as_deref(), &self.headers)
                .map_err(HeadError::Malformed)?;
        }
        let size = map_size(&self.headers) + self.limit - self.room;
        Ok(Head::Request(Arc::new(RequestHead {
            size: size as u32,
            method,
            scheme,
            authority: self.authority,
            path,
            headers: self.headers,
            content_length: self.content_length,
        })))
    }
}

/// The values that most messages of gRPC have.
const USUAL_VALUES: [&str; 6] =
    ["application/grpc", "application/grpc+proto", "trailers", "0", "identity", "gzip"];

/// Makes usual values static. A copy of such a value counts no reference, which would take two atomic
/// operations.
fn use_static_values(headers: &mut HeaderMap) {
    for value in headers.values_mut().filter(|value| !value.is_sensitive()) {
        if let Some(usual) = USUAL_VALUES.into_iter().find(|usual| value == *usual) {
            *value = HeaderValue::from_static(usual);
        }
    }
}

/// Returns how much memory a map of header fields takes beside their names and values, in bytes.
/// RFC 9113 §6.5.2 counts about what a name and a value take: 32 bytes more than their length. A binary
/// value of gRPC's may be several that are joined by commas. They count as they are after they were
/// taken apart.
fn map_size(headers: &HeaderMap) -> usize {
    /// The map's entry with its hash, its indices, and the spare room of both.
    const ENTRY: usize = 112;
    /// A further value of the same name.
    const EXTRA: usize = 72;
    let joined: usize = headers.iter().map(|(name, value)| commas(name, value)).sum();
    let extra = headers.len() - headers.keys_len() + joined;
    headers.capacity() * ENTRY + extra.next_power_of_two() * EXTRA + joined * 32
}

/// Returns the number of commas in a binary value.
fn commas(name: &HeaderName, value: &HeaderValue) -> usize {
    if !name.as_str().ends_with("-bin") {
        return 0;
    }
    value.as_bytes().iter().filter(|byte| **byte == b',').count()
}

/// Returns how much memory header fields take, in bytes.
pub(super) fn fields_size(headers: &HeaderMap) -> usize {
    let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 32;
    map_size(headers) + headers.iter().map(field).sum::<usize>()
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), &'static str> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err("a pseudo-header twice"),
    }
}

/// Checks RFC 9113 §8.3.1 for `http` and `https`: `:authority` or Host is present, not empty and
/// without a user name, and both are the same.
fn check_authority(authority: Option<&[u8]>, headers: &HeaderMap) -> Result<(), &'static str> {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let Some(named) = authority.or(host) else {
        return Err("neither :authority nor Host");
    };
    if named.contains(&b'@') || Authority::try_from(named).is_err() {
        return Err("not an authority");
    }
    if host.is_some_and(|host| !host.eq_ignore_ascii_case(named)) {
        return Err(":authority and Host differ");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a copy of a head whose values have memory of their own.
    fn copied_head() -> HeaderMap {
        let own = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
        let mut secret = own("0");
        secret.set_sensitive(true);
        let fields = [
            (header::TE, own("trailers")),
            (header::CONTENT_TYPE, own("application/grpc")),
            (header::USER_AGENT, own("greeter/1")),
            (header::AUTHORIZATION, secret),
        ];
        let headers: HeaderMap = fields.into_iter().collect();
        let Head::Trailers(copy) = Head::Trailers(Arc::new(headers.clone())).copy() else {
            panic!("another kind of head")
        };
        assert_eq!(*copy, headers);
        HeaderMap::clone(&copy)
    }

    #[test]
    fn usual_values_of_a_copied_head_are_static() {
        let [first, second] = [copied_head(), copied_head()];
        let is_static =
            |name| first[&name].as_bytes().as_ptr() == second[&name].as_bytes().as_ptr();
        assert!(is_static(header::TE) && is_static(header::CONTENT_TYPE));
        assert!(!is_static(header::USER_AGENT));
        assert!(!is_static(header::AUTHORIZATION), "it would not be sensitive any more");
        assert!(first[header::AUTHORIZATION].is_sensitive());
    }
}

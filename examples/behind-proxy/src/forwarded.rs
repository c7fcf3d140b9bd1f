//! Who is behind the proxy. The header `x-forwarded-client-cert` says it, and everybody who can
//! connect can send that header: it is believed only from the proxy, which the kernel tells by its
//! user. From anybody else it is removed, so that no handler can take it for true.

use samehost::PeerIdentity;
use samehost::tonic::service::Interceptor;
use samehost::tonic::{Request, Status};

const HEADER: &str = "x-forwarded-client-cert";

/// The client that the proxy has seen a certificate of. It is among a request's extensions.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxiedClient {
    /// The URI in the client's certificate.
    pub id: String,
}

/// Believes what a proxy that runs as this user says of its clients.
#[derive(Clone)]
pub struct FromProxy {
    pub uid: u32,
}

impl Interceptor for FromProxy {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let header = request.metadata_mut().remove(HEADER);
        let peer = request.extensions().get::<PeerIdentity>();
        if !peer.is_some_and(|peer| peer.has_known_user() && peer.uid() == self.uid) {
            return Ok(request);
        }
        let id = header.as_ref().and_then(|value| value.to_str().ok()).and_then(uri);
        let id = id.ok_or_else(|| Status::unauthenticated("the proxy names no client"))?;
        let client = ProxiedClient { id: id.to_owned() };
        request.extensions_mut().insert(client);
        Ok(request)
    }
}

/// Returns the URI that the header names: `Hash=…;Subject="…";URI=spiffe://example.org/web`. A proxy
/// that replaces the header, as it is configured to, names one certificate. A comma begins another
/// one: then it is not known whose words these are, and none is believed.
fn uri(header: &str) -> Option<&str> {
    let mut uris = Vec::new();
    let (mut quoted, mut escaped, mut start) = (false, false, 0);
    for (at, character) in header.char_indices().chain([(header.len(), ';')]) {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => return None,
            ';' if !quoted => {
                uris.extend(header[start..at].strip_prefix("URI="));
                start = at + 1;
            }
            _ => {}
        }
    }
    match uris[..] {
        [uri] if !quoted && !uri.is_empty() => Some(uri),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::uri;

    #[test]
    fn one_certificate_with_one_uri_names_a_client() {
        let found = |header| uri(header).unwrap_or_default();
        assert_eq!(found("URI=spiffe://a/b"), "spiffe://a/b");
        assert_eq!(found(r#"Hash=1f;Subject="CN=x,O=y";URI=spiffe://a/b"#), "spiffe://a/b");
        assert_eq!(
            found(r#"Subject="CN=\";URI=spiffe://a/root";URI=spiffe://a/b"#),
            "spiffe://a/b"
        );
        for header in [
            "",
            "Hash=1f",
            "URI=",
            "URI=spiffe://a/b;URI=spiffe://a/c",
            "URI=spiffe://a/root,URI=spiffe://a/b",
            r#"Subject="URI=spiffe://a/root""#,
            r#"Subject=";URI=spiffe://a/root"#,
        ] {
            assert_eq!(uri(header), None, "{header}");
        }
    }
}

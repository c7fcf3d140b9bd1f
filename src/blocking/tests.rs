use std::io::Write;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use http::HeaderMap;

use super::call::BlockingCall;
use super::channel::Channel;
use super::request::BlockingRequest;
use crate::address::Address;
use crate::driver::Fields;

/// Returns a frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let head = [0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
    [&head, payload].concat()
}

/// Returns a field that is neither indexed nor Huffman-coded (RFC 7541 §6.2.2).
fn field(name: &str, value: &str) -> Vec<u8> {
    let lens = [name.len() as u8, value.len() as u8];
    [&[0, lens[0]], name.as_bytes(), &[lens[1]], value.as_bytes()].concat()
}

/// Another thread may read the response while this one looks whether the call has failed.
#[test]
fn a_response_that_another_thread_has_read_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bare.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(&frame(4, 0, 0, &[])).unwrap();
        server
    });
    let channel = Channel::builder(Address::unix(path).unwrap()).timeout(Duration::from_secs(10));
    let channel = channel.connect().unwrap();
    let mut server = server.join().unwrap();

    let mut request =
        BlockingRequest::new(&channel, "/a.B/C", Fields::Own(HeaderMap::new().into()), None);
    let Ok(mut call) = BlockingCall::open(&channel, &mut request, None) else { panic!("not open") };
    let fields = [("content-type", "application/grpc"), ("grpc-status", "0")];
    let fields = [(":status", "200")].into_iter().chain(fields);
    let block: Vec<u8> = fields.flat_map(|(name, value)| field(name, value)).collect();
    server.write_all(&frame(1, 5, 1, &block)).unwrap();
    // This reads what is there, as another thread would.
    assert!(channel.connection(None, false, true).is_ok());

    assert!(call.unprocessed().is_none());
    let Ok(response) = call.head() else { panic!("the response is lost") };
    assert_eq!(response.head.headers["grpc-status"], "0");
}

//! The functions that the fuzz target of message framing calls.

use bytes::Bytes;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};

use super::compression::ReceivedEncoding;
use super::framing::{Deframer, decode_single, is_single};
use super::limit::Limit;
use crate::grpc::PREFIX;

/// How large a message may be here: 1 KiB.
const LIMIT: Limit = Limit::of_client(1 << 10);

type Deframed = (Vec<Bytes>, Result<bool, Code>);

/// Returns the messages of data that arrives in pieces of these sizes in turn, and whether nothing
/// is left over.
fn found(mut data: &[u8], sizes: &[u8], received: &ReceivedEncoding) -> Deframed {
    let mut deframer = Deframer::new(received.clone(), LIMIT);
    let mut messages = Vec::new();
    let mut sizes = sizes.iter().cycle();
    while !data.is_empty() {
        let size = sizes.next().map_or(data.len(), |size| usize::from(*size) + 1);
        let (piece, rest) = data.split_at(size.min(data.len()));
        data = rest;
        deframer.push(Bytes::copy_from_slice(piece));
        loop {
            match deframer.next::<Bytes>() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(status) => return (messages, Err(known(&status))),
            }
        }
    }
    (messages, Ok(deframer.is_empty()))
}

/// Returns the code of a status that an invalid message may have.
fn known(status: &Status) -> Code {
    assert!(matches!(status.code(), Code::Internal | Code::ResourceExhausted), "{status:?}");
    status.code()
}

/// Finds messages in any bytes. However the bytes are cut, the messages are the same, and none is
/// too large. A single whole message is also found on the short way.
pub(crate) fn messages(data: &[u8]) {
    let Some((&[choice, sizes], data)) = data.split_first_chunk::<2>() else { return };
    let received = match choice % 3 {
        0 => ReceivedEncoding::Identity,
        1 => ReceivedEncoding::Compressed(CompressionEncoding::Gzip),
        _ => ReceivedEncoding::Unknown("any".to_owned()),
    };
    let (sizes, data) = data.split_at(usize::from(sizes % 8).min(data.len()));
    let at_once = found(data, &[], &received);
    assert_eq!(found(data, sizes, &received), at_once);
    assert_eq!(found(data, &[0], &received), at_once);
    let (messages, end) = at_once;
    for message in &messages {
        assert!(message.len() <= LIMIT.bytes);
    }
    if received == ReceivedEncoding::Identity {
        let bytes: usize = messages.iter().map(|message| PREFIX + message.len()).sum();
        assert!(bytes <= data.len());
    }
    if is_single(data, LIMIT) {
        match decode_single::<Bytes>(Bytes::copy_from_slice(data), true) {
            Ok(message) => assert_eq!((messages, end), (vec![message], Ok(true))),
            Err(status) => assert_eq!((messages, end), (Vec::new(), Err(known(&status)))),
        }
    }
}

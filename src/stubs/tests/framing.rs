//! Messages in pieces of any size.

use bytes::Bytes;
use proptest::prelude::*;
use tonic::Code;
use tonic::codec::CompressionEncoding;

use super::support::{framed, string};
use crate::grpc::PREFIX;
use crate::stubs::compression::{ReceivedEncoding, decompress};
use crate::stubs::framing::{Deframer, encode};
use crate::stubs::limit::Limit;

const LIMIT: Limit = Limit::of_client(1 << 20);
const NO_LIMIT: Limit = Limit::of_client(usize::MAX);

/// Returns the messages of data in pieces of this size, and whether nothing is left over.
fn found(
    data: &[u8],
    size: usize,
    received: ReceivedEncoding,
) -> Result<(Vec<Vec<u8>>, bool), Code> {
    let mut deframer = Deframer::new(received, LIMIT);
    let mut messages = Vec::new();
    for piece in data.chunks(size.max(1)) {
        deframer.push(Bytes::copy_from_slice(piece));
        while let Some(message) = deframer.next::<Vec<u8>>().map_err(|status| status.code())? {
            messages.push(message);
        }
    }
    Ok((messages, deframer.is_empty()))
}

#[test]
fn messages_that_have_only_begun_take_little_room() {
    const MESSAGES: usize = 40;
    // All of them together may have so much for nothing.
    const FEW: usize = 4 << 20;
    let mut data = Vec::new();
    encode(&vec![7_u8; 1_000_000], None, NO_LIMIT, &mut data).unwrap();
    for size in [700, 16_384, 40_960] {
        let mut begun: Vec<_> =
            (0..MESSAGES).map(|_| Deframer::new(ReceivedEncoding::Identity, LIMIT)).collect();
        let mut arrived = 0;
        for piece in data[..80_000].chunks(size) {
            arrived += piece.len();
            for deframer in &mut begun {
                deframer.push(Bytes::copy_from_slice(piece));
                assert_eq!(deframer.next::<Vec<u8>>().unwrap(), None);
            }
            let room: usize = begun.iter().map(Deframer::room).sum();
            let most = if arrived <= 64 * 1024 { 2 * arrived } else { data.len() };
            assert!(room <= MESSAGES * most + FEW, "{room} of {arrived}");
        }
        for deframer in &mut begun {
            deframer.push(Bytes::copy_from_slice(&data[arrived..]));
            assert_eq!(deframer.next::<Vec<u8>>().unwrap().unwrap(), [7; 1_000_000]);
        }
    }
}

proptest! {
    #[test]
    fn messages_come_out_as_they_went_in(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6),
        size in 1_usize..700,
        cut in 0_usize..8,
    ) {
        let mut data = Vec::new();
        for message in &messages {
            encode(message, None, NO_LIMIT, &mut data).unwrap();
        }
        let (out, complete) = found(&data, size, ReceivedEncoding::Identity).unwrap();
        prop_assert_eq!(&out, &messages);
        prop_assert!(complete);
        // If a message is cut off, its beginning is left over.
        if cut > 0 && data.len() > cut {
            let (out, complete) = found(&data[..data.len() - cut], size, ReceivedEncoding::Identity).unwrap();
            prop_assert!(out.len() < messages.len());
            let whole = messages[..out.len()].iter().map(|it| {
                let mut encoded = Vec::new();
                encode(it, None, NO_LIMIT, &mut encoded).unwrap();
                encoded.len()
            });
            prop_assert_eq!(complete, data.len() - cut == whole.sum::<usize>());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(data in prop::collection::vec(any::<u8>(), 0..64), size in 1_usize..9) {
        let _ = found(&data, size, ReceivedEncoding::Identity);
        let _ = found(&data, size, ReceivedEncoding::Compressed(CompressionEncoding::Gzip));
    }
}

#[test]
fn compressed_messages_come_out_as_they_went_in() {
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let messages = [Vec::new(), vec![7; 100_000], (0..=255).collect()];
        let mut data = Vec::new();
        for message in &messages {
            encode(message, Some(encoding), NO_LIMIT, &mut data).unwrap();
        }
        // A message that is not compressed may stand between others.
        encode(&b"plain".to_vec(), None, NO_LIMIT, &mut data).unwrap();
        for size in [1, 7, data.len()] {
            let (out, complete) =
                found(&data, size, ReceivedEncoding::Compressed(encoding)).unwrap();
            assert_eq!(out[..3], messages);
            assert_eq!(out[3], b"plain");
            assert!(complete);
        }
    }
}

#[test]
fn what_is_no_message_has_its_code() {
    let unknown = ReceivedEncoding::Unknown("snappy".to_owned());
    let gzip = ReceivedEncoding::Compressed(CompressionEncoding::Gzip);
    for (data, received, code) in [
        (framed(1, b"x"), ReceivedEncoding::Identity, Code::Internal),
        (framed(1, b"x"), unknown.clone(), Code::Internal),
        (framed(2, b"x"), ReceivedEncoding::Identity, Code::Internal),
        (framed(255, b"x"), gzip.clone(), Code::Internal),
        // This is neither compressed nor a message.
        (framed(1, b"x"), gzip.clone(), Code::Internal),
        (framed(0, b"\xff"), ReceivedEncoding::Identity, Code::Internal),
        // Only its prefix has come.
        (vec![0, 0xff, 0xff, 0xff, 0xff], ReceivedEncoding::Identity, Code::ResourceExhausted),
        (vec![1, 0xff, 0xff, 0xff, 0xff], gzip, Code::ResourceExhausted),
    ] {
        for size in [1, data.len()] {
            assert_eq!(found(&data, size, received.clone()), Err(code), "{data:?}");
        }
    }
    // An encoding that is not accepted does not matter if nothing is compressed.
    assert_eq!(found(&framed(0, b""), 1, unknown), Ok((vec![Vec::new()], true)));
}

#[test]
fn a_message_of_the_limit_is_taken_and_one_of_more_is_not() {
    for (size, fits) in [(LIMIT.bytes, true), (LIMIT.bytes + 1, false)] {
        // Four bytes belong to its field.
        let message = vec![0; size - 4];
        let mut data = Vec::new();
        encode(&message, None, NO_LIMIT, &mut data).unwrap();
        assert_eq!(data.len(), PREFIX + size);
        assert_eq!(found(&data, 4096, ReceivedEncoding::Identity).is_ok(), fits);
        let mut out = b"before".to_vec();
        let encoded = encode(&message, None, LIMIT, &mut out);
        assert_eq!(encoded.map_err(|status| status.code()).is_ok(), fits);
        assert_eq!(out.len(), if fits { 6 + data.len() } else { 6 });
    }
}

#[test]
fn a_bomb_is_not_decompressed_beyond_the_limit() {
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut data = Vec::new();
        encode(&vec![0; 64 << 20], Some(encoding), NO_LIMIT, &mut data).unwrap();
        assert!(data.len() < LIMIT.bytes);
        let outcome = found(&data, 4096, ReceivedEncoding::Compressed(encoding));
        assert_eq!(outcome, Err(Code::ResourceExhausted), "{encoding}");
    }
}

#[test]
fn a_zstd_window_is_bounded() {
    // A frame without content, whose descriptor asks for a window of 2 GiB (RFC 8878 §3.1.1.1.2).
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
    let outcome =
        found(&framed(1, &frame), 64, ReceivedEncoding::Compressed(CompressionEncoding::Zstd));
    assert_eq!(outcome, Err(Code::Internal));
}

#[test]
fn the_largest_zstd_window_is_told_unless_the_message_is_too_large() {
    // The frame has its content's size, and its descriptor asks for a window of 2 GiB.
    let decompressed = |size: u64| {
        let frame = [&[0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0xa8], &size.to_le_bytes()[..], &[1, 0, 0]];
        decompress(CompressionEncoding::Zstd, &frame.concat(), LIMIT).unwrap_err()
    };
    let limit = LIMIT.bytes as u64;
    assert_eq!(decompressed(limit + 1).code(), Code::ResourceExhausted);
    let status = decompressed(limit);
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("(zstd with a window of up to 8 MiB)"), "{status}");
}

#[test]
fn what_is_kept_of_a_message_is_only_its_own() {
    // Its `bytes` do not keep the buffer that they were received in.
    let mut data = string("a message");
    data.resize(1 << 16, 0);
    let received = Bytes::from(data);
    let mut deframer = Deframer::new(ReceivedEncoding::Identity, LIMIT);
    deframer.push(received.clone());
    let message = deframer.next::<Bytes>().unwrap().unwrap();
    drop(deframer);
    assert_eq!(message, "a message");
    assert!(received.is_unique());
}

#[test]
fn a_piece_that_is_used_up_is_dropped() {
    let mut deframer = Deframer::new(ReceivedEncoding::Identity, LIMIT);
    let data = string("a message").repeat(2);
    for len in [data.len(), data.len() - 4] {
        let received = Bytes::copy_from_slice(&data[..len]);
        deframer.push(received.clone());
        while deframer.next::<Bytes>().unwrap().is_some() {}
        assert!(received.is_unique(), "{len}");
    }
    assert!(!deframer.is_empty());
}

#[test]
fn a_message_in_pieces_keeps_no_more_memory_than_its_size() {
    let mut deframer = Deframer::new(ReceivedEncoding::Identity, LIMIT);
    for size in [900_000, 1_000, 700_000, 10] {
        let mut data = Vec::new();
        encode(&Bytes::from(vec![7; size]), None, NO_LIMIT, &mut data).unwrap();
        let mut messages = Vec::new();
        for piece in data.chunks(data.len().div_ceil(3)) {
            deframer.push(Bytes::copy_from_slice(piece));
            messages.extend(deframer.next::<Bytes>().unwrap());
            // A large message has its memory already.
            assert!(deframer.room() <= size + PREFIX + 64, "{} bytes for {size}", deframer.room());
        }
        let message = messages.pop().expect("a message");
        assert_eq!(message.len(), size);
        if size < 64 * 1024 {
            let buffer = message.try_into_mut().expect("no other part of the buffer is left");
            assert!(buffer.capacity() <= size + 64, "{} bytes for {size}", buffer.capacity());
        }
    }
}

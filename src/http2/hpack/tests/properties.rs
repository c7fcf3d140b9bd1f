//! Tests what holds for any input: the two ends agree, and hostile bytes do no damage.

use http::HeaderName;
use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{huffman, integer};
use super::*;

/// The events of one connection, in order.
#[derive(Clone, Debug)]
enum Event {
    /// The decoder's end changed SETTINGS_HEADER_TABLE_SIZE.
    TableSize(usize),
    Block(Vec<(Name, Vec<u8>, bool)>),
}

#[derive(Clone, Debug)]
enum Name {
    Pseudo(Pseudo),
    Header(HeaderName),
}

fn pseudo() -> impl Strategy<Value = Pseudo> {
    prop_oneof![
        Just(Pseudo::Authority),
        Just(Pseudo::Method),
        Just(Pseudo::Path),
        Just(Pseudo::Scheme),
        Just(Pseudo::Status),
        Just(Pseudo::Protocol),
    ]
}

fn header_name() -> impl Strategy<Value = HeaderName> {
    const KNOWN: &[&str] = &[
        "te",
        "content-type",
        "accept-encoding",
        "grpc-timeout",
        "grpc-status",
        "authorization",
        "a",
    ];
    const CHARS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789-_.!~";
    prop_oneof![
        4 => prop::sample::select(KNOWN).prop_map(HeaderName::from_static),
        1 => vec(prop::sample::select(CHARS), 1..80)
            .prop_map(|name| HeaderName::from_lowercase(&name).unwrap()),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    const KNOWN: &[&[u8]] = &[b"", b"GET", b"http", b"200", b"trailers", b"/", b"1"];
    let byte = prop_oneof![
        8 => 0x20u8..0x7f,
        1 => 0x80u8..=0xff,
        1 => Just(b'\t'),
    ];
    prop_oneof![
        6 => prop::sample::select(KNOWN).prop_map(<[u8]>::to_vec),
        2 => vec(byte.clone(), 0..60),
        1 => (byte, 0usize..1500).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn field() -> impl Strategy<Value = (Name, Vec<u8>, bool)> {
    let name = prop_oneof![
        1 => pseudo().prop_map(Name::Pseudo),
        3 => header_name().prop_map(Name::Header),
    ];
    (name, value(), prop::bool::weighted(0.1))
}

fn event() -> impl Strategy<Value = Event> {
    let size = prop_oneof![
        3 => 0usize..300,
        1 => 300usize..10_000,
        1 => Just(4096usize),
    ];
    prop_oneof![
        1 => size.prop_map(Event::TableSize),
        4 => vec(field(), 1..12).prop_map(Event::Block),
    ]
}

proptest! {
    #[test]
    fn both_ends_agree_whatever_is_sent(events in vec(event(), 1..25)) {
        let mut encoder = Encoder::new();
        let mut decoder = Decoder::new(4096);
        for event in events {
            let fields = match event {
                Event::TableSize(size) => {
                    encoder.set_peer_max_table_size(size);
                    decoder.set_max_table_size(size);
                    continue;
                }
                Event::Block(fields) => fields,
            };
            let mut out = BytesMut::new();
            let mut block = encoder.begin(&mut out);
            let mut sent = Vec::new();
            for (name, bytes, sensitive) in fields {
                let mut value = HeaderValue::from_bytes(&bytes).unwrap();
                match name {
                    Name::Pseudo(name) => {
                        block.pseudo(name, &bytes);
                        sent.push((Field::Pseudo(name, value), false));
                    }
                    Name::Header(name) => {
                        value.set_sensitive(sensitive);
                        block.header(&name, &value);
                        sent.push((Field::Header(name, value), sensitive));
                    }
                }
            }
            let before = (table(&decoder), decoder.table().max_size());
            let generation = decoder.generation();
            let mut received = Vec::new();
            decoder
                .decode(&out, |field| {
                    let sensitive = match field {
                        Field::Pseudo(_, value) | Field::Header(_, value) => value.is_sensitive(),
                        Field::Malformed { .. } => false,
                    };
                    received.push((field.clone(), sensitive));
                })
                .unwrap();
            prop_assert_eq!(received, sent);
            prop_assert_eq!(table(&decoder), sent_table(&encoder));
            prop_assert_eq!(decoder.table().size(), encoder.table().size());
            prop_assert_eq!(decoder.table().max_size(), encoder.table().max_size());
            let after = (table(&decoder), decoder.table().max_size());
            prop_assert!(before == after || decoder.generation() != generation);
            let sum: usize = decoder.table().entries().map(Field::size).sum();
            prop_assert_eq!(decoder.table().size(), sum);
            prop_assert!(sum <= decoder.table().max_size());
        }
    }

    #[test]
    fn hostile_bytes_do_no_more_than_fail(
        blocks in vec((vec(any::<u8>(), 0..200), prop::option::of(0usize..5000)), 1..8),
    ) {
        let mut decoder = Decoder::new(4096);
        let mut limit = 4096;
        for (block, size) in blocks {
            if let Some(size) = size {
                decoder.set_max_table_size(size);
                limit = size;
            }
            // A decoder that has failed and is used again must not panic or grow.
            let result = decoder.decode(&block, |field| {
                assert!(field.size() >= 32);
            });
            prop_assert!(result.is_err() || decoder.table().max_size() <= limit);
            let sum: usize = decoder.table().entries().map(Field::size).sum();
            prop_assert_eq!(decoder.table().size(), sum);
            prop_assert!(sum <= decoder.table().max_size());
        }
    }

    /// Changes a few bytes of a valid block, which reaches more code than arbitrary bytes.
    #[test]
    fn damaged_blocks_do_no_more_than_fail(
        fields in vec(field(), 1..20),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut out = BytesMut::new();
        let mut encoder = Encoder::new();
        for _ in 0..2 {
            let mut block = encoder.begin(&mut out);
            for (name, bytes, _) in &fields {
                match name {
                    Name::Pseudo(name) => block.pseudo(*name, bytes),
                    Name::Header(name) => {
                        block.header(name, &HeaderValue::from_bytes(bytes).unwrap());
                    }
                }
            }
        }
        for (index, byte) in damage {
            let at = index.index(out.len());
            out[at] = byte;
        }
        let mut decoder = Decoder::new(4096);
        let _ = decoder.decode(&out, |_| ());
        let sum: usize = decoder.table().entries().map(Field::size).sum();
        prop_assert_eq!(decoder.table().size(), sum);
        prop_assert!(sum <= 4096);
    }

    #[test]
    fn huffman_gives_back_any_bytes(bytes in vec(any::<u8>(), 0..300)) {
        let mut encoded = BytesMut::new();
        huffman::encode(&bytes, &mut encoded);
        prop_assert_eq!(encoded.len(), huffman::encoded_len(&bytes));
        let mut decoded = Vec::new();
        huffman::decode(&encoded, &mut decoded).unwrap();
        prop_assert_eq!(decoded, bytes);
    }

    /// Bytes that decode are the bytes that the encoder would have written: there is no second
    /// form.
    #[test]
    fn huffman_takes_no_other_spelling(encoded in vec(any::<u8>(), 0..20)) {
        let mut decoded = Vec::new();
        if huffman::decode(&encoded, &mut decoded).is_ok() {
            let mut again = BytesMut::new();
            huffman::encode(&decoded, &mut again);
            prop_assert_eq!(again, encoded);
        }
    }

    #[test]
    fn integers_survive_any_prefix(value in any::<u32>(), shift in 0u32..32, prefix_bits in 4u32..8) {
        let value = (value >> shift) as usize;
        let mut out = BytesMut::new();
        integer::encode(value, prefix_bits, 0, &mut out);
        let mut rest = &out[1..];
        prop_assert_eq!(integer::decode(out[0], prefix_bits, &mut rest), Ok(value));
        prop_assert!(rest.is_empty());
    }
}

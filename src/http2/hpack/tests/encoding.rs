//! Tests which fields the encoder adds to its table, and how many bytes it writes.

use super::super::sent_table::SentTable;
use super::*;

/// Both ends of one direction. Each block is decoded and compared with its input, and the two
/// tables are compared.
struct Pair {
    encoder: Encoder,
    decoder: Decoder,
}

impl Pair {
    fn new() -> Self {
        Self { encoder: Encoder::new(), decoder: Decoder::new(4096) }
    }

    fn send(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let block = encode(&mut self.encoder, fields);
        assert_eq!(decode(&mut self.decoder, &block).unwrap(), pairs(fields));
        assert_eq!(sent_table(&self.encoder), table(&self.decoder));
        assert_eq!(self.encoder.table().size(), self.decoder.table().size());
        block
    }

    fn knows(&self, name: &str, value: &str) -> bool {
        sent_table(&self.encoder).contains(&(name.to_owned(), value.to_owned()))
    }
}

const CALL: &[(&str, &str)] = &[
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/ping.v1.PingService/Ping"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("user-agent", "samehost/0.1"),
];

#[test]
fn repeated_call_is_a_byte_a_field() {
    let mut pair = Pair::new();
    assert!(pair.send(CALL).len() > CALL.len());
    for _ in 0..3 {
        let block = pair.send(CALL);
        assert_eq!(block.len(), CALL.len());
        assert!(block.iter().all(|byte| byte & 0x80 != 0));
    }
}

/// Fields come in another order, some are left out and some are new: the expected follower does not
/// matter.
#[test]
fn known_fields_are_a_byte_each_in_any_order() {
    let mut pair = Pair::new();
    pair.send(CALL);
    pair.send(CALL);
    let mut fields = CALL.to_vec();
    for i in 0..CALL.len() {
        fields.rotate_left(i);
        fields.swap(0, 3);
        assert_eq!(pair.send(&fields).len(), fields.len());
        assert_eq!(pair.send(&fields[i..]).len(), fields.len() - i);
    }
}

/// The values have the same name and length and differ in one byte, while the other value is
/// expected.
#[test]
fn field_is_not_mistaken_for_the_one_expected() {
    for len in 1..40 {
        for at in 0..len {
            let expected = "v".repeat(len);
            let mut other = expected.clone();
            other.replace_range(at..=at, "w");
            let mut pair = Pair::new();
            for _ in 0..3 {
                pair.send(&[("te", "trailers"), ("x", &expected)]);
            }
            pair.send(&[("te", "trailers"), ("x", &other)]);
            pair.send(&[("te", "trailers"), (&expected, "x")]);
            pair.send(&[("te", "trailers"), (&expected, "x")]);
            pair.send(&[("te", "trailers"), (&other, "x")]);
        }
    }
}

#[test]
fn field_is_not_mistaken_for_one_of_the_same_hash() {
    let mut table = SentTable::new();
    table.insert(7, 7, b"one", b"1");
    table.insert(7, 7, b"two", b"2");
    table.insert(7, 7, b"six", b"6");
    assert_eq!(table.find(7, b"one", b"1"), Some(64));
    assert_eq!(table.find(7, b"two", b"2"), Some(63));
    assert_eq!(table.find(7, b"two", b"1"), None);
    assert_eq!(table.find_name(7, b"one").map(|(index, _)| index), Some(64));
    assert!(table.find_name(7, b"ten").is_none());
}

#[test]
fn static_entries_are_used_without_a_table() {
    let mut pair = Pair::new();
    let fields = [
        (":status", "200"),
        (":status", "404"),
        (":path", "/"),
        ("accept-encoding", "gzip, deflate"),
        ("content-type", ""),
    ];
    assert_eq!(pair.send(&fields), hex("88 8d 84 90 9f"));
    assert_eq!(pair.encoder.table().size(), 0);
}

#[test]
fn values_that_differ_every_time_leave_the_table_alone() {
    let mut pair = Pair::new();
    pair.send(CALL);
    pair.send(&[("grpc-timeout", "0m"), ("content-length", "0"), ("x-request-id", "0")]);
    let size = pair.encoder.table().size();
    for i in 1..500 {
        let [a, b, c] = [format!("{i}m"), format!("{i}"), format!("id-{i}")];
        let block =
            pair.send(&[("grpc-timeout", &a), ("content-length", &b), ("x-request-id", &c)]);
        assert!(block.len() <= 24, "names by index: {block:02x?}");
    }
    assert_eq!(pair.encoder.table().size(), size);
    assert_eq!(pair.send(CALL).len(), CALL.len());
}

#[test]
fn value_that_replaces_another_for_good_is_added() {
    let mut pair = Pair::new();
    pair.send(&[("x-user", "once")]);
    for _ in 0..2 {
        assert!(!pair.knows("x-user", "from now on"));
        pair.send(&[("x-user", "from now on")]);
    }
    assert!(pair.knows("x-user", "from now on"));
    assert_eq!(pair.send(&[("x-user", "from now on")]).len(), 1);
}

#[test]
fn values_that_take_turns_are_all_added() {
    let mut pair = Pair::new();
    let paths = ["/s/A", "/s/B", "/s/C", "/s/D"];
    for _ in 0..paths.len() {
        for path in paths {
            pair.send(&[(":path", path)]);
        }
    }
    for path in paths {
        assert_eq!(pair.send(&[(":path", path)]).len(), 1, "{path}");
    }
}

#[test]
fn field_of_more_than_a_quarter_of_the_table_is_not_added() {
    let mut pair = Pair::new();
    // "big", 32 and the value make 1024 bytes.
    let value = "x".repeat(1024 - 32 - 3);
    pair.send(&[("big", &value)]);
    assert!(pair.knows("big", &value));
    let mut pair = Pair::new();
    let value = "x".repeat(1024 - 32 - 2);
    for _ in 0..3 {
        pair.send(&[("big", &value)]);
    }
    assert_eq!(pair.encoder.table().size(), 0);
}

#[test]
fn sensitive_value_is_never_indexed_even_if_the_table_has_it() {
    let name = http::HeaderName::from_static("x-token");
    let mut value = HeaderValue::from_static("hidden");
    let mut pair = Pair::new();
    pair.send(&[("x-token", "hidden"), ("x-token", "hidden")]);
    value.set_sensitive(true);
    for _ in 0..3 {
        let mut out = BytesMut::new();
        pair.encoder.begin(&mut out).header(&name, &value);
        assert_eq!(out[0] & 0xf0, 0x10, "{out:02x?}");
        pair.decoder
            .decode(&out, |field| {
                let Field::Header(name, value) = field else {
                    panic!("{field:?}");
                };
                assert_eq!((name.as_str(), value.as_bytes()), ("x-token", &b"hidden"[..]));
                assert!(value.is_sensitive());
            })
            .unwrap();
    }
    assert_eq!(table(&pair.decoder).len(), 1);
    // The static table has this name with an empty value.
    let mut value = HeaderValue::from_static("");
    value.set_sensitive(true);
    let mut out = BytesMut::new();
    pair.encoder.begin(&mut out).header(&http::header::AUTHORIZATION, &value);
    assert_eq!(out, hex("1f 08 00"));
}

#[test]
fn strings_are_huffman_coded_when_that_is_shorter() {
    let mut encoder = Encoder::new();
    assert_eq!(
        encode(&mut encoder, &[(":authority", "www.example.com")]),
        hex("41 8c f1e3 c2e5 f23a 6ba0 ab90 f4ff")
    );
    // '&' takes eight bits, so Huffman coding is not shorter and the string is plain.
    assert_eq!(encode(&mut encoder, &[(":path", "&&")]), hex("44 02 26 26"));
    assert_eq!(encode(&mut encoder, &[("te", "")])[0], 0x40);
}

/// Returns the start of the next block, up to its `:method: GET`.
fn announced(encoder: &mut Encoder) -> Vec<u8> {
    let mut block = encode(encoder, &[(":method", "GET")]);
    assert_eq!(block.pop(), Some(0x82));
    block
}

#[test]
fn table_size_is_announced_when_it_changes() {
    let mut encoder = Encoder::new();
    assert!(announced(&mut encoder).is_empty());
    encoder.set_peer_max_table_size(100);
    assert_eq!(announced(&mut encoder), hex("3f 45"));
    assert!(announced(&mut encoder).is_empty());
    encoder.set_peer_max_table_size(100);
    assert!(announced(&mut encoder).is_empty());
    encoder.set_peer_max_table_size(200);
    assert_eq!(announced(&mut encoder), hex("3f a9 01"));
    encoder.set_peer_max_table_size(0);
    assert_eq!(announced(&mut encoder), hex("20"));
}

/// A block announces the smallest size and then the last one (§4.2).
#[test]
fn smallest_and_final_size_are_announced() {
    let mut encoder = Encoder::new();
    encode(&mut encoder, CALL);
    for size in [300, 10, 50, 20] {
        encoder.set_peer_max_table_size(size);
    }
    assert_eq!(encoder.table().size(), 0, "evicted on the way down");
    assert_eq!(announced(&mut encoder), hex("2a 34"));
    // The size goes down and up again: it is the same as before, but entries were evicted.
    encoder.set_peer_max_table_size(0);
    encoder.set_peer_max_table_size(20);
    assert_eq!(announced(&mut encoder), hex("20 34"));
}

#[test]
fn table_is_four_kib_whatever_the_peer_offers() {
    let mut encoder = Encoder::new();
    encoder.set_peer_max_table_size(65536);
    assert!(announced(&mut encoder).is_empty());
    assert_eq!(encoder.table().max_size(), 4096);
    // This reduction does not concern our table, but a strict peer requires an update after it.
    encoder.set_peer_max_table_size(8192);
    assert_eq!(announced(&mut encoder), hex("3f e1 1f"));
    encoder.set_peer_max_table_size(usize::MAX);
    assert!(announced(&mut encoder).is_empty());
}

#[test]
fn encoder_works_without_a_table() {
    let mut pair = Pair::new();
    pair.encoder.set_peer_max_table_size(0);
    pair.decoder.set_max_table_size(0);
    for _ in 0..3 {
        pair.send(CALL);
    }
    assert_eq!(pair.encoder.table().size(), 0);
}

/// Adds ten thousand entries, so that the slots are reused and the bytes are moved.
#[test]
fn tables_stay_in_step_over_many_evictions() {
    let mut pair = Pair::new();
    for i in 0..10_000 {
        let name = format!("n{i}");
        let value = "v".repeat(i * 7 % 97);
        pair.send(&[(&name, &value), (":authority", "localhost")]);
        let size = pair.encoder.table().size();
        assert!(size <= 4096);
        assert!(i < 100 || size > 4096 - 200, "{size}");
    }
    assert!(pair.encoder.table().bytes_held() <= 3 * 4096);
}

/// Adds as many entries as possible: an entry with a name of one byte and no value takes 33 bytes.
#[test]
fn smallest_entries_fill_the_table() {
    let mut pair = Pair::new();
    // A name has one of 37 first characters; the values make the entries differ.
    let names = "abcdefghijklmnopqrstuvwxyz0123456789-";
    for round in 0..4 {
        for name in names.chars() {
            let name = name.to_string();
            let value = ["", "0", "1", "2"][round];
            // It is sent twice, since a second value of a name is added when it comes twice in a
            // row.
            pair.send(&[(&name, value)]);
            pair.send(&[(&name, value)]);
        }
    }
    let entries = sent_table(&pair.encoder);
    assert!(entries.len() >= 120, "{}", entries.len());
    for (name, value) in entries {
        assert!(pair.send(&[(&name, &value)]).len() <= 2);
    }
}

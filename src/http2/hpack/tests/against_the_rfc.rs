//! Compares with RFC 7541 Appendix C, byte for byte, and with parts of Appendix A and B.

use bytes::BytesMut;

use super::super::hash::hash;
use super::super::static_table::{self, Match};
use super::super::{huffman, integer};
use super::*;

/// One step of an Appendix C sequence: a block, its fields, the table after it and its size.
struct Step {
    block: &'static str,
    fields: &'static [(&'static str, &'static str)],
    table: &'static [(&'static str, &'static str)],
    size: usize,
}

fn decodes_sequence(max_table_size: usize, steps: &[Step]) {
    let mut decoder = Decoder::new(max_table_size);
    for step in steps {
        let fields = decode(&mut decoder, &hex(step.block)).unwrap();
        assert_eq!(fields, pairs(step.fields), "{}", step.block);
        assert_eq!(table(&decoder), pairs(step.table), "{}", step.block);
        assert_eq!(decoder.table().size(), step.size, "{}", step.block);
    }
}

fn encodes_sequence(max_table_size: usize, steps: &[Step]) {
    let mut encoder = Encoder::new();
    encoder.set_peer_max_table_size(max_table_size);
    encoder.begin(&mut BytesMut::new());
    for step in steps {
        assert_eq!(encode(&mut encoder, step.fields), hex(step.block));
        assert_eq!(sent_table(&encoder), pairs(step.table));
        assert_eq!(encoder.table().size(), step.size);
    }
}

const DATE_1: &str = "Mon, 21 Oct 2013 20:13:21 GMT";
const DATE_2: &str = "Mon, 21 Oct 2013 20:13:22 GMT";
const URL: &str = "https://www.example.com";
const COOKIE: &str = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";

fn requests(blocks: [&'static str; 3]) -> [Step; 3] {
    [
        Step {
            block: blocks[0],
            fields: &[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "www.example.com"),
            ],
            table: &[(":authority", "www.example.com")],
            size: 57,
        },
        Step {
            block: blocks[1],
            fields: &[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "www.example.com"),
                ("cache-control", "no-cache"),
            ],
            table: &[("cache-control", "no-cache"), (":authority", "www.example.com")],
            size: 110,
        },
        Step {
            block: blocks[2],
            fields: &[
                (":method", "GET"),
                (":scheme", "https"),
                (":path", "/index.html"),
                (":authority", "www.example.com"),
                ("custom-key", "custom-value"),
            ],
            table: &[
                ("custom-key", "custom-value"),
                ("cache-control", "no-cache"),
                (":authority", "www.example.com"),
            ],
            size: 164,
        },
    ]
}

fn responses(blocks: [&'static str; 3]) -> [Step; 3] {
    [
        Step {
            block: blocks[0],
            fields: &[
                (":status", "302"),
                ("cache-control", "private"),
                ("date", DATE_1),
                ("location", URL),
            ],
            table: &[
                ("location", URL),
                ("date", DATE_1),
                ("cache-control", "private"),
                (":status", "302"),
            ],
            size: 222,
        },
        Step {
            block: blocks[1],
            fields: &[
                (":status", "307"),
                ("cache-control", "private"),
                ("date", DATE_1),
                ("location", URL),
            ],
            table: &[
                (":status", "307"),
                ("location", URL),
                ("date", DATE_1),
                ("cache-control", "private"),
            ],
            size: 222,
        },
        Step {
            block: blocks[2],
            fields: &[
                (":status", "200"),
                ("cache-control", "private"),
                ("date", DATE_2),
                ("location", URL),
                ("content-encoding", "gzip"),
                ("set-cookie", COOKIE),
            ],
            table: &[("set-cookie", COOKIE), ("content-encoding", "gzip"), ("date", DATE_2)],
            size: 215,
        },
    ]
}

const C3: [&str; 3] = [
    "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
    "8286 84be 5808 6e6f 2d63 6163 6865",
    "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
];
const C4: [&str; 3] = [
    "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
    "8286 84be 5886 a8eb 1064 9cbf",
    "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
];
const C5: [&str; 3] = [
    "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a
     3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
    "4803 3330 37c1 c0bf",
    "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04
     677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49
     553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
];
const C6: [&str; 3] = [
    "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e
     919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
    "4883 640e ffc1 c0bf",
    "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7
     821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed
     4ee5 b106 3d50 07",
];

#[test]
fn decodes_the_request_examples_of_appendix_c3_and_c4() {
    decodes_sequence(4096, &requests(C3));
    decodes_sequence(4096, &requests(C4));
}

#[test]
fn decodes_the_response_examples_of_appendix_c5_and_c6() {
    decodes_sequence(256, &responses(C5));
    decodes_sequence(256, &responses(C6));
}

/// C.4.1 and C.4.3 are encoded as in the RFC. The encoder cannot produce C.6, which indexes every
/// date.
#[test]
fn encodes_the_request_examples_of_appendix_c4() {
    encodes_sequence(4096, &requests(C4));
}

/// C.1.1 and C.1.2. C.1.3 has a prefix of eight bits, which HPACK itself never uses.
#[test]
fn integers_of_appendix_c1() {
    for (value, bytes) in [(10, "0a"), (1337, "1f 9a 0a")] {
        let bytes = hex(bytes);
        let mut out = BytesMut::new();
        integer::encode(value, 5, 0, &mut out);
        assert_eq!(out, bytes);
        let mut rest = &bytes[1..];
        assert_eq!(integer::decode(bytes[0], 5, &mut rest), Ok(value));
        assert!(rest.is_empty());
    }
}

#[test]
fn representations_of_appendix_c2() {
    let custom: &[_] = &[("custom-key", "custom-header")];
    for (block, fields, table_after, size) in [
        ("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", custom, custom, 55),
        ("040c 2f73 616d 706c 652f 7061 7468", &[(":path", "/sample/path")], &[], 0),
        ("1008 7061 7373 776f 7264 0673 6563 7265 74", &[("password", "secret")], &[], 0),
        ("82", &[(":method", "GET")], &[], 0),
    ] {
        let mut decoder = Decoder::new(4096);
        assert_eq!(decode(&mut decoder, &hex(block)).unwrap(), pairs(fields));
        assert_eq!(table(&decoder), pairs(table_after));
        assert_eq!(decoder.table().size(), size);
    }
}

#[test]
fn static_table_has_every_entry_at_its_index() {
    for (index, name, value) in [
        (1, ":authority", ""),
        (2, ":method", "GET"),
        (3, ":method", "POST"),
        (4, ":path", "/"),
        (6, ":scheme", "http"),
        (8, ":status", "200"),
        (14, ":status", "500"),
        (15, "accept-charset", ""),
        (16, "accept-encoding", "gzip, deflate"),
        (19, "accept", ""),
        (23, "authorization", ""),
        (28, "content-length", ""),
        (31, "content-type", ""),
        (33, "date", ""),
        (38, "host", ""),
        (46, "location", ""),
        (54, "server", ""),
        (58, "user-agent", ""),
        (61, "www-authenticate", ""),
    ] {
        let field = static_table::get(index).unwrap();
        assert_eq!((field.name(), field.value()), (name.as_bytes(), value.as_bytes()));
    }
    assert!(static_table::get(62).is_none());
}

#[test]
fn static_table_finds_every_entry_and_nothing_else() {
    let find = |name: &[u8], value| static_table::find(name, hash(0, name), value);
    for index in 1..=static_table::LEN {
        let field = static_table::get(index).unwrap();
        assert_eq!(find(field.name(), field.value()), Match::Field(index));
    }
    assert_eq!(find(b":status", b"418"), Match::Name(8));
    assert_eq!(find(b"www-authenticate", b"x"), Match::Name(61));
    assert_eq!(find(b"grpc-timeout", b""), Match::None);
    assert_eq!(find(b"", b""), Match::None);
}

/// These codes of Appendix B differ if a length of the canonical code is wrong.
#[test]
fn huffman_codes_are_those_of_appendix_b() {
    for (byte, code, length) in [
        (b'0', 0x0, 5),
        (b't', 0x9, 5),
        (b' ', 0x14, 6),
        (b'u', 0x2d, 6),
        (b':', 0x5c, 7),
        (b'z', 0x7b, 7),
        (b'&', 0xf8, 8),
        (b'Z', 0xfd, 8),
        (b'!', 0x3f8, 10),
        (b'|', 0x7fc, 11),
        (b'#', 0xffa, 12),
        (0, 0x1ff8, 13),
        (b'}', 0x3ffd, 14),
        (b'{', 0x7ffe, 15),
        (b'\\', 0x7fff0, 19),
        (195, 0x7fff1, 19),
        (128, 0xfffe6, 20),
        (153, 0x1fffdc, 21),
        (129, 0x3fffd2, 22),
        (1, 0x7fffd8, 23),
        (9, 0xffffea, 24),
        (199, 0x1ffffec, 25),
        (192, 0x3ffffe0, 26),
        (203, 0x7ffffde, 27),
        (2, 0xfffffe2, 28),
        (249, 0xffffffe, 28),
        (22, 0x3ffffffe, 30),
    ] {
        // The code is padded with ones up to the end of the byte (§5.2).
        let padding = (8 - length % 8) % 8;
        let padded = (code + 1u64) << padding;
        let expected = (padded - 1).to_be_bytes();
        let bytes = (length + padding) as usize / 8;

        let mut out = BytesMut::new();
        huffman::encode(&[byte], &mut out);
        let expected = if padding == 0 { code.to_be_bytes() } else { expected };
        assert_eq!(out, expected[8 - bytes..], "byte {byte}");
        assert_eq!(huffman::encoded_len(&[byte]), bytes);
    }
}

//! Tests which blocks the decoder refuses and which it accepts, and how its table changes.

use super::super::{huffman, integer};
use super::*;

/// Decodes one block with a decoder that has just been made.
fn decode_new(block: &str) -> Result<Fields, DecodeError> {
    decode(&mut Decoder::new(4096), &hex(block))
}

fn integer(first: u8, prefix_bits: u32, rest: &str) -> Result<usize, DecodeError> {
    integer::decode(first, prefix_bits, &mut &hex(rest)[..])
}

fn unfold(encoded: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    huffman::decode(encoded, &mut out).map(|()| out)
}

#[test]
fn integers_reach_to_32_bits_in_five_bytes_and_no_further() {
    let max = u32::MAX as usize;
    assert_eq!(integer(0x1f, 5, "e0 ff ff ff 0f"), Ok(max));
    assert_eq!(integer(0x1f, 5, "e1 ff ff ff 0f"), Err(DecodeError::IntegerOverflow));
    assert_eq!(integer(0x7f, 7, "ff ff ff ff 7f"), Err(DecodeError::IntegerOverflow));
    // §5.1 does not require the shortest form, so zeros on top are allowed, but a sixth byte is
    // excessive.
    assert_eq!(integer(0x1f, 5, "80 80 80 80 00"), Ok(31));
    assert_eq!(integer(0x1f, 5, "80 80 80 80 80 00"), Err(DecodeError::IntegerOverflow));
}

#[test]
fn integer_that_stops_short_is_truncated() {
    for rest in ["", "80", "ff ff ff ff"] {
        assert_eq!(integer(0x1f, 5, rest), Err(DecodeError::Truncated));
    }
}

#[test]
fn flag_bits_are_no_part_of_an_integer() {
    assert_eq!(integer(0xea, 5, ""), Ok(10));
    assert_eq!(integer(0xff, 5, "9a 0a"), Ok(1337));
}

#[test]
fn huffman_padding_is_fewer_than_eight_ones() {
    // 'a' is 00011. Three ones fill up the byte.
    assert_eq!(unfold(&[0b0001_1111]).unwrap(), b"a");
    assert_eq!(unfold(&[]).unwrap(), b"");
    // '&' is 11111000 and needs no padding.
    assert_eq!(unfold(&[0xf8]).unwrap(), b"&");
    for (encoded, why) in [
        (&[0b0001_1110][..], "a zero in the padding"),
        (&[0b0001_1000][..], "zeros for padding"),
        (&[0b0001_1111, 0xff][..], "eleven ones"),
        (&[0xf8, 0xff][..], "eight ones"),
        (&[0xff][..], "nothing but padding, eight ones"),
        (&[0xff, 0xff, 0xff][..], "the start of EOS"),
    ] {
        assert_eq!(unfold(encoded), Err(DecodeError::Huffman), "{why}");
    }
    // ':' is 1011100 and needs one bit of padding, the least. "00:" takes seventeen bits and needs
    // seven, the most.
    assert_eq!(unfold(&[0b1011_1001]).unwrap(), b":");
    assert_eq!(unfold(&[0x00, 0b0010_1110, 0b0111_1111]).unwrap(), b"00:");
}

#[test]
fn huffman_coded_eos_is_refused() {
    // 30 ones, alone and after an 'a', are followed by valid padding.
    assert_eq!(unfold(&[0xff; 4]), Err(DecodeError::Huffman));
    assert_eq!(unfold(&[0b0001_1111, 0xff, 0xff, 0xff, 0b1110_0011]), Err(DecodeError::Huffman));
}

#[test]
fn index_zero_or_beyond_the_tables_is_refused() {
    for block in [
        "80",             // §6.1: index 0
        "be",             // 62, the dynamic table being empty
        "ff 00",          // 127
        "ff ff ff ff 0f", // some 2^31
        "7f 00 01 61",    // a literal's name, with incremental indexing
        "0f 2f 01 61",    // without
    ] {
        assert_eq!(decode_new(block), Err(DecodeError::InvalidIndex), "{block}");
    }
    assert!(decode_new("bd").is_ok()); // 61
    assert!(decode_new("4001 6101 62 be").is_ok());
    assert_eq!(decode_new("4001 6101 62 bf"), Err(DecodeError::InvalidIndex));
}

#[test]
fn block_that_stops_short_is_truncated() {
    // Each proper prefix of a literal with a literal name is decoded, plain and Huffman-coded.
    for block in [
        "40 03 61 62 63 02 64 65",
        "40 88 25a8 49e9 5ba9 7d7f 89 25a8 49e9 5bb8 e8b4 bf",
        "0f 10 01 61",
        "ff 80 01",
        "3f e1 1f",
    ] {
        let block = hex(block);
        for end in 1..block.len() {
            assert_eq!(
                decode(&mut Decoder::new(4096), &block[..end]),
                Err(DecodeError::Truncated),
                "{:02x?}",
                &block[..end]
            );
        }
    }
    assert_eq!(decode_new("").unwrap(), []);
}

#[test]
fn invalid_huffman_code_fails_the_block() {
    assert_eq!(decode_new("00 81 18 01 61"), Err(DecodeError::Huffman));
    assert_eq!(decode_new("00 01 61 81 18"), Err(DecodeError::Huffman));
}

#[test]
fn size_update_stands_before_the_first_field_only() {
    assert!(decode_new("20 3f e1 1f 82").is_ok());
    assert_eq!(decode_new("82 20"), Err(DecodeError::SizeUpdateMisplaced));
    assert_eq!(decode_new("20 4001 6101 62 20"), Err(DecodeError::SizeUpdateMisplaced));
}

#[test]
fn size_update_is_bounded_by_what_was_allowed() {
    assert!(decode_new("3f e1 1f").is_ok()); // 4096
    assert_eq!(decode_new("3f e2 1f"), Err(DecodeError::SizeUpdateTooLarge));
    let mut decoder = Decoder::new(4096);
    decoder.set_max_table_size(5000);
    assert!(decode(&mut decoder, &hex("3f e2 1f")).is_ok());
    assert_eq!(decoder.table().max_size(), 4097);
}

#[test]
fn offering_more_changes_nothing_until_the_peer_takes_it() {
    for mut decoder in [Decoder::new(65536), Decoder::new(4096)] {
        decoder.set_max_table_size(65536);
        assert_eq!(decoder.table().max_size(), 4096);
        assert!(decode(&mut decoder, &hex("82")).is_ok());
    }
}

#[test]
fn reduction_has_to_be_answered_by_the_next_block() {
    let reduced = || {
        let mut decoder = Decoder::new(4096);
        decoder.set_max_table_size(100);
        decoder
    };
    assert_eq!(decode(&mut reduced(), &hex("82")), Err(DecodeError::SizeUpdateMissing));
    assert_eq!(decode(&mut reduced(), &[]), Err(DecodeError::SizeUpdateMissing));
    assert_eq!(
        decode(&mut reduced(), &hex("3f 46 82")), // 101
        Err(DecodeError::SizeUpdateTooLarge)
    );
    let mut decoder = reduced();
    assert!(decode(&mut decoder, &hex("3f 45 82")).is_ok()); // 100
    assert_eq!(decoder.table().max_size(), 100);
    assert!(decode(&mut decoder, &hex("82")).is_ok());
}

#[test]
fn smallest_of_several_reductions_has_to_be_answered() {
    let dipped = || {
        let mut decoder = Decoder::new(4096);
        for size in [30, 10, 20, 4096] {
            decoder.set_max_table_size(size);
        }
        decoder
    };
    assert_eq!(
        decode(&mut dipped(), &hex("34 82")), // 20
        Err(DecodeError::SizeUpdateMissing)
    );
    assert_eq!(
        decode(&mut dipped(), &hex("3f e1 1f 2a 82")), // 4096, then 10
        Err(DecodeError::SizeUpdateMissing)
    );
    assert!(decode(&mut dipped(), &hex("2a 3f e1 1f 82")).is_ok());
}

#[test]
fn reduction_that_the_peer_is_below_already_needs_no_answer() {
    let mut decoder = Decoder::new(4096);
    decode(&mut decoder, &hex("20")).unwrap();
    decoder.set_max_table_size(100);
    assert!(decode(&mut decoder, &hex("82")).is_ok());
}

#[test]
fn lowering_the_size_evicts_the_oldest() {
    let mut decoder = Decoder::new(4096);
    // The fields are a: 1, b: 2 and c: 3, of 34 bytes each.
    decode(&mut decoder, &hex("4001 6101 31 4001 6201 32 4001 6301 33")).unwrap();
    decode(&mut decoder, &hex("3f 25")).unwrap(); // 68
    assert_eq!(table(&decoder), pairs(&[("c", "3"), ("b", "2")]));
    decode(&mut decoder, &hex("3f 24")).unwrap(); // 67
    assert_eq!(table(&decoder), pairs(&[("c", "3")]));
    assert_eq!(decoder.table().size(), 34);
    decode(&mut decoder, &hex("20 3f e1 1f")).unwrap();
    assert_eq!(table(&decoder), []);
    assert_eq!(decoder.table().size(), 0);
}

#[test]
fn entry_larger_than_the_table_empties_it_and_is_still_a_field() {
    let mut decoder = Decoder::new(35);
    decode(&mut decoder, &hex("4001 6102 3132")).unwrap(); // 35, just fits
    assert_eq!(table(&decoder), pairs(&[("a", "12")]));
    let fields = decode(&mut decoder, &hex("4001 6203 313233")).unwrap();
    assert_eq!(fields, pairs(&[("b", "123")]));
    assert_eq!(table(&decoder), []);
    assert_eq!(decoder.table().size(), 0);
}

/// A name is still valid after its entry was evicted (§4.4).
#[test]
fn name_may_come_from_the_entry_it_evicts() {
    let mut decoder = Decoder::new(40);
    decode(&mut decoder, &hex("4003 612d 6201 31")).unwrap();
    let fields = decode(&mut decoder, &hex("7e 02 3233")).unwrap();
    assert_eq!(fields, pairs(&[("a-b", "23")]));
    assert_eq!(table(&decoder), fields);
    // The same holds if the new entry does not fit the empty table.
    let fields = decode(&mut decoder, &hex("7e 06 323334353637")).unwrap();
    assert_eq!(fields, pairs(&[("a-b", "234567")]));
    assert_eq!(table(&decoder), []);
}

#[test]
fn only_a_never_indexed_literal_is_sensitive() {
    let mut sensitive = Vec::new();
    // The blocks are: never indexed, without indexing, with incremental indexing (the index of its
    // name has the bit that means "never" in a four-bit prefix), and the entry that the third one
    // made.
    Decoder::new(4096)
        .decode(&hex("1f 01 01 31  0f 01 01 31  50 01 31  be"), |field| {
            if let Field::Pseudo(_, value) | Field::Header(_, value) = field {
                sensitive.push(value.is_sensitive());
            }
        })
        .unwrap();
    assert_eq!(sensitive, [true, false, false, false]);
}

#[test]
fn malformed_fields_are_told_apart_and_keep_their_place_in_the_table() {
    for (name, value) in [
        (&b"Upper"[..], &b"v"[..]),
        (b"sp ace", b"v"),
        (b"", b"v"),
        (b":unknown", b"v"),
        (b":Path", b"v"),
        (b"a:b", b"v"),
        (b"nul", b"a\0b"),
        (b"lf", b"a\nb"),
        (b"cr", b"a\rb"),
        (b"del", b"a\x7f"),
        (b":path", b"a\nb"),
        (b"x\xff", b"v"),
        (&[b'X'; 80], b"v"),
    ] {
        let mut block = vec![0x40, name.len() as u8];
        block.extend_from_slice(name);
        block.push(value.len() as u8);
        block.extend_from_slice(value);
        block.push(0xbe);
        let mut seen = 0;
        let mut decoder = Decoder::new(4096);
        decoder
            .decode(&block, |field| {
                assert!(matches!(field, Field::Malformed { .. }), "{field:?}");
                assert_eq!((field.name(), field.value()), (name, value));
                assert_eq!(field.size(), name.len() + value.len() + 32);
                seen += 1;
            })
            .unwrap();
        assert_eq!(seen, 2, "once as a literal, once from the table");
        assert_eq!(decoder.table().size(), name.len() + value.len() + 32);
    }
}

/// Otherwise three bytes could make the decoder copy and check four thousand.
#[test]
fn a_name_in_the_table_is_not_copied_again() {
    let token = [b'a'; 3_000];
    let no_token = [&token[1..], b"A"].concat();
    for (name, value) in [(&token[..], &b"v"[..]), (&token, b"\0"), (&no_token, b"v")] {
        let mut block = BytesMut::from(&[0x40][..]);
        integer::encode(name.len(), 7, 0, &mut block);
        block.extend_from_slice(name);
        block.extend_from_slice(&[1, value[0]]);
        // Two literals without indexing follow that have this name. The second value is malformed.
        block.extend_from_slice(&[0x0f, 62 - 15, 1, b'x']);
        block.extend_from_slice(&[0x0f, 62 - 15, 1, 0]);
        let mut names = Vec::new();
        let mut decoder = Decoder::new(4096);
        decoder
            .decode(&block, |field| {
                assert_eq!(field.name(), name);
                names.push(field.name().as_ptr());
            })
            .unwrap();
        assert_eq!(names, [names[0]; 3], "{}", text(&name[2_998..]));
    }
}

#[test]
fn what_http2_allows_is_not_malformed() {
    for (name, value) in [
        (&b":protocol"[..], &b"websocket"[..]),
        (b":authority", b""),
        (b":path", b"not a path, which is for the connection to say"),
        (b"x-obs", b"\xc3\xa9\xff"),
        (b"x-tab", b"a\tb"),
        (b"grpc-message", b" spaces at both ends "),
        (b"!#$%&'*+-.^_`|~09az", b""),
    ] {
        let mut block = vec![0x00, name.len() as u8];
        block.extend_from_slice(name);
        block.push(value.len() as u8);
        block.extend_from_slice(value);
        Decoder::new(4096)
            .decode(&block, |field| {
                assert!(!matches!(field, Field::Malformed { .. }), "{field:?}");
                assert_eq!((field.name(), field.value()), (name, value));
            })
            .unwrap();
    }
}

#[test]
fn field_malformed_for_its_value_lends_a_good_name() {
    let mut fields = Vec::new();
    Decoder::new(4096)
        // a: LF and :path: LF are added to the table. Then both names get a valid value.
        .decode(&hex("4001 6101 0a 4401 0a 0f 30 01 31 0f 2f 01 2f"), |field| {
            fields.push(field.clone());
        })
        .unwrap();
    let value = HeaderValue::from_static;
    assert_eq!(
        fields[2..],
        [
            Field::Header(http::HeaderName::from_static("a"), value("1")),
            Field::Pseudo(Pseudo::Path, value("/")),
        ]
    );
}

#[test]
fn generation_stands_still_exactly_while_the_table_does() {
    let mut decoder = Decoder::new(4096);
    let mut last = decoder.generation();
    let mut changed = |decoder: &Decoder| {
        let changed = decoder.generation() != last;
        last = decoder.generation();
        changed
    };
    for (block, changes) in [
        ("82 86", false),
        ("4001 6101 31", true),
        ("82 be", false),
        ("0001 6101 31 1001 6101 31", false),
        ("3f e1 1f be", false), // 4096, which it is
        ("3f 45 be", true),     // 100
        ("4001 6101 31", true),
        ("7e 81 07", true), // the same field again; nothing is evicted
        ("20", true),
        ("82", false),
    ] {
        decode(&mut decoder, &hex(block)).unwrap();
        assert_eq!(changed(&decoder), changes, "{block}");
    }
    // A cached block may lack the size update that is required from now on.
    decoder.set_max_table_size(50);
    assert!(changed(&decoder));
    decoder.set_max_table_size(50);
    assert!(!changed(&decoder));
}

#[test]
fn scratch_space_is_given_back() {
    let mut block = hex("0001 61"); // and the value's length and bytes
    let mut value = BytesMut::new();
    let long = vec![b'0'; 100_000];
    huffman::encode(&long, &mut value);
    let mut length = BytesMut::new();
    integer::encode(value.len(), 7, 0x80, &mut length);
    block.extend_from_slice(&length);
    block.extend_from_slice(&value);
    let mut decoder = Decoder::new(4096);
    let fields = decode(&mut decoder, &block).unwrap();
    assert_eq!(fields[0].1.len(), long.len());
    assert!(decoder.scratch_capacity() <= 4096);
}

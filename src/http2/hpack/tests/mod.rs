//! Tests HPACK with the RFC's examples, with generated fields and with blocks that it must refuse.
//! This file has what the tests share.

mod against_the_rfc;
mod decoding;
mod encoding;
mod properties;

use bytes::BytesMut;
use http::HeaderValue;

use super::*;

type Fields = Vec<(String, String)>;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn pairs(fields: &[(&str, &str)]) -> Fields {
    fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, DecodeError> {
    let mut fields = Vec::new();
    decoder.decode(block, |field| {
        fields.push((text(field.name()), text(field.value())));
    })?;
    Ok(fields)
}

fn table(decoder: &Decoder) -> Fields {
    decoder.table().entries().map(|field| (text(field.name()), text(field.value()))).collect()
}

fn encode(encoder: &mut Encoder, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = BytesMut::new();
    write(encoder.begin(&mut out), fields);
    out.to_vec()
}

fn write(mut block: BlockEncoder<'_>, fields: &[(&str, &str)]) {
    for (name, value) in fields {
        match field::Name::parse(name.as_bytes()) {
            field::Name::Pseudo(name) => block.pseudo(name, value.as_bytes()),
            field::Name::Header(name) => {
                block.header(&name, &HeaderValue::from_str(value).unwrap());
            }
            field::Name::Malformed(_) => panic!("not a name: {name}"),
        }
    }
}

fn sent_table(encoder: &Encoder) -> Fields {
    encoder.table().entries().map(|(name, value)| (text(name), text(value))).collect()
}

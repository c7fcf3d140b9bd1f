//! The static table (RFC 7541 Appendix A): the decoder looks entries up by index, the encoder by
//! name.

use std::sync::LazyLock;

use http::{HeaderName, HeaderValue, header::*};

use super::field::{Field, Pseudo};
use super::hash::hash;

/// The number of entries. Their indexes are 1 to 61; those of the dynamic table follow (§2.3.3).
pub(super) const LEN: usize = 61;

static FIELDS: [Field; LEN] = [
    pseudo(Pseudo::Authority, ""),
    pseudo(Pseudo::Method, "GET"),
    pseudo(Pseudo::Method, "POST"),
    pseudo(Pseudo::Path, "/"),
    pseudo(Pseudo::Path, "/index.html"),
    pseudo(Pseudo::Scheme, "http"),
    pseudo(Pseudo::Scheme, "https"),
    pseudo(Pseudo::Status, "200"),
    pseudo(Pseudo::Status, "204"),
    pseudo(Pseudo::Status, "206"),
    pseudo(Pseudo::Status, "304"),
    pseudo(Pseudo::Status, "400"),
    pseudo(Pseudo::Status, "404"),
    pseudo(Pseudo::Status, "500"),
    header(ACCEPT_CHARSET, ""),
    header(ACCEPT_ENCODING, "gzip, deflate"),
    header(ACCEPT_LANGUAGE, ""),
    header(ACCEPT_RANGES, ""),
    header(ACCEPT, ""),
    header(ACCESS_CONTROL_ALLOW_ORIGIN, ""),
    header(AGE, ""),
    header(ALLOW, ""),
    header(AUTHORIZATION, ""),
    header(CACHE_CONTROL, ""),
    header(CONTENT_DISPOSITION, ""),
    header(CONTENT_ENCODING, ""),
    header(CONTENT_LANGUAGE, ""),
    header(CONTENT_LENGTH, ""),
    header(CONTENT_LOCATION, ""),
    header(CONTENT_RANGE, ""),
    header(CONTENT_TYPE, ""),
    header(COOKIE, ""),
    header(DATE, ""),
    header(ETAG, ""),
    header(EXPECT, ""),
    header(EXPIRES, ""),
    header(FROM, ""),
    header(HOST, ""),
    header(IF_MATCH, ""),
    header(IF_MODIFIED_SINCE, ""),
    header(IF_NONE_MATCH, ""),
    header(IF_RANGE, ""),
    header(IF_UNMODIFIED_SINCE, ""),
    header(LAST_MODIFIED, ""),
    header(LINK, ""),
    header(LOCATION, ""),
    header(MAX_FORWARDS, ""),
    header(PROXY_AUTHENTICATE, ""),
    header(PROXY_AUTHORIZATION, ""),
    header(RANGE, ""),
    header(REFERER, ""),
    header(REFRESH, ""),
    header(RETRY_AFTER, ""),
    header(SERVER, ""),
    header(SET_COOKIE, ""),
    header(STRICT_TRANSPORT_SECURITY, ""),
    header(TRANSFER_ENCODING, ""),
    header(USER_AGENT, ""),
    header(VARY, ""),
    header(VIA, ""),
    header(WWW_AUTHENTICATE, ""),
];

const fn pseudo(name: Pseudo, value: &'static str) -> Field {
    Field::Pseudo(name, HeaderValue::from_static(value))
}

const fn header(name: HeaderName, value: &'static str) -> Field {
    Field::Header(name, HeaderValue::from_static(value))
}

/// Returns the entry at `index`, which is not 0.
#[inline]
pub(super) fn get(index: usize) -> Option<&'static Field> {
    FIELDS.get(index - 1)
}

/// How a field matches the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    Field(usize),
    Name(usize),
    None,
}

/// Looks a field up; `name_hash` is `hash(0, name)`.
pub(super) fn find(name: &[u8], name_hash: u64, value: &[u8]) -> Match {
    let mut slot = slot(name_hash);
    let first = loop {
        let index = usize::from(BY_NAME[slot]);
        if index == 0 {
            return Match::None;
        }
        if FIELDS[index - 1].name() == name {
            break index;
        }
        slot = (slot + 1) % SLOTS;
    };
    // Entries with the same name are next to each other.
    for (i, field) in FIELDS[first - 1..].iter().enumerate() {
        if field.name() != name {
            break;
        }
        if field.value() == value {
            return Match::Field(first + i);
        }
    }
    Match::Name(first)
}

const SLOTS: usize = 128;

const fn slot(name_hash: u64) -> usize {
    name_hash as usize % SLOTS
}

/// The first index of each name, in a hash table with linear probing; 0 is an empty slot.
static BY_NAME: LazyLock<[u8; SLOTS]> = LazyLock::new(|| {
    let mut slots = [0; SLOTS];
    for (i, field) in FIELDS.iter().enumerate() {
        if i > 0 && FIELDS[i - 1].name() == field.name() {
            continue;
        }
        let mut slot = slot(hash(0, field.name()));
        while slots[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        slots[slot] = i as u8 + 1;
    }
    slots
});

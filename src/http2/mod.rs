//! HTTP/2 (RFC 9113) without IO: bytes in, events out. No socket, no clock, no task.

#![cfg_attr(
    not(test),
    expect(
        dead_code,
        unused_imports,
        reason = "nothing calls it before the connection does"
    )
)]

pub(crate) mod hpack;

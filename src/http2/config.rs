//! What a connection is told at its start: limits, windows, times. It never changes afterwards.

use std::time::Duration;

/// Sizes in bytes, unless said otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// Server: requests at a time, advertised. A stream counts until it is forgotten.
    pub(crate) max_streams: u32,
    /// Server: streams that are over for the peer and not forgotten yet, which do not count: the
    /// peer may replace a call that it cancelled before its handler is dropped.
    pub(crate) max_lingering: u32,
    /// Client: requests at a time until the server's first SETTINGS name its own limit.
    pub(crate) initial_max_streams: u32,
    /// What a peer may send on one stream before the application has read any of it.
    ///
    /// 64 KiB, which is what peers assume: hundreds of streams that nobody reads hold little.
    pub(crate) stream_window: u32,
    /// What that grows to while the application reads.
    ///
    /// 1 MiB: more than a Unix socket's own buffer holds (at most 832 KiB, see `socket`), so that the
    /// window never is what a sender waits for while the reader keeps up.
    pub(crate) max_stream_window: u32,
    /// What may be under way on all streams together. What has arrived does not count.
    pub(crate) connection_window: u32,
    /// The largest frame we accept, 16,384 to 16,777,215 (RFC 9113 §4.2).
    ///
    /// 40 KiB: tonic hands over a stream's messages when they come to 32 KiB, and so they fit one
    /// frame. Much larger frames would have the receiver wait where it could work.
    pub(crate) max_frame_size: u32,
    /// The largest header list we accept, counted as RFC 9113 §6.5.2 says.
    pub(crate) max_header_list_size: u32,
    /// How many descriptors may come with one head, at most 253. 0: the peer may send none, and learns
    /// nothing of it.
    pub(crate) descriptors: u8,
    /// `:authority` may be any bytes, or absent: over a Unix socket it carries no meaning.
    /// Otherwise the rules of RFC 9113 §8.3.1 hold.
    pub(crate) any_authority: bool,
    /// From the start to the peer's preface, SETTINGS and the acknowledgement of ours.
    pub(crate) handshake_timeout: Duration,
    /// How long a frame, or a header block of several frames, may take to arrive.
    pub(crate) frame_timeout: Duration,
    /// How long the peer may let data wait that it does not read: bytes that the socket does not
    /// take, or more than `max_stalled` bytes for which it gives no window.
    pub(crate) send_timeout: Duration,
    /// Data that may wait for the peer's windows without end. A slow reader is no offence.
    pub(crate) max_stalled: u64,
    /// PING after silence. `None`: never.
    pub(crate) keep_alive: Option<KeepAlive>,
    /// A connection without a call for so long is ended. `None`: never.
    pub(crate) idle_timeout: Option<Duration>,
}

/// A PING after `interval` without a sign of the peer; `timeout` more without one, and the
/// connection is dead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepAlive {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    /// Also while no stream is open.
    pub(crate) when_idle: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_streams: 256,
            max_lingering: 64,
            initial_max_streams: 100,
            stream_window: 65_535,
            max_stream_window: 1 << 20,
            connection_window: 4 << 20,
            max_frame_size: 40_960,
            max_header_list_size: 16_384,
            descriptors: 0,
            any_authority: true,
            handshake_timeout: Duration::from_secs(5),
            frame_timeout: Duration::from_secs(10),
            send_timeout: Duration::from_secs(30),
            max_stalled: 64 << 20,
            keep_alive: None,
            idle_timeout: None,
        }
    }
}

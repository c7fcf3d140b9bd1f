//! The options of a connection: limits, windows, times. They are given at its start.

use std::time::Duration;

/// Sizes are in bytes unless stated otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// Server: the advertised number of concurrent requests. A stream counts until it is forgotten.
    pub(crate) max_streams: u32,
    /// Server: how many streams that have ended for the peer, but are not forgotten yet, do not
    /// count. So the peer may replace a call that it cancelled before its handler is dropped.
    pub(crate) max_lingering: u32,
    /// Client: the number of concurrent requests until the server's first SETTINGS state its own
    /// limit.
    pub(crate) initial_max_streams: u32,
    /// How much a peer may send on one stream before the application has read any of it.
    ///
    /// 64 KiB, which peers assume by default. With this size, hundreds of streams that are not read
    /// hold little.
    pub(crate) stream_window: u32,
    /// What the stream window grows to while the application reads.
    ///
    /// 1 MiB is more than a Unix socket's own buffer holds (at most 832 KiB, see `socket`). So a
    /// sender never waits for this window while the reader keeps up.
    pub(crate) max_stream_window: u32,
    /// How much may be under way on all streams together. Data that has arrived does not count.
    pub(crate) connection_window: u32,
    /// The largest frame we accept, 16,384 to 16,777,215 (RFC 9113 §4.2).
    ///
    /// 40 KiB: tonic sends a stream's messages once they are 32 KiB together, and so they fit into
    /// one frame. With much larger frames, the receiver would wait at times when it could work.
    pub(crate) max_frame_size: u32,
    /// The largest header list that we accept, counted as in RFC 9113 §6.5.2.
    pub(crate) max_header_list_size: u32,
    /// How many descriptors may come with one head, at most 253. With 0 the peer may send none, and
    /// is told nothing about them.
    pub(crate) descriptors: u8,
    /// Whether `:authority` may have any bytes, or be absent: over a Unix socket it has no meaning.
    /// Otherwise the rules of RFC 9113 §8.3.1 hold.
    pub(crate) any_authority: bool,
    /// The time from the start until the peer has sent its preface and SETTINGS, and has
    /// acknowledged ours.
    pub(crate) handshake_timeout: Duration,
    /// How long a frame, or a header block of several frames, may take to arrive.
    pub(crate) frame_timeout: Duration,
    /// How long the peer may leave data unread: bytes that the socket does not take, or more than
    /// `max_stalled` bytes for which the peer gives no window.
    pub(crate) send_timeout: Duration,
    /// How much data may wait for the peer's windows without a time limit. A slow reader is
    /// allowed.
    pub(crate) max_stalled: u64,
    /// Whether PINGs are sent after silence. `None` means never.
    pub(crate) keep_alive: Option<KeepAlive>,
    /// A connection without a call for this long is ended. `None` means never.
    pub(crate) idle_timeout: Option<Duration>,
}

/// A PING is sent after `interval` without a byte from the peer. After another `timeout` without
/// one, the connection is dead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeepAlive {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    /// Whether this also holds while no stream is open.
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

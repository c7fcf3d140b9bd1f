//! SETTINGS (RFC 9113 §6.5): what the peer's frames say, and what ours say.

use bytes::{BufMut, BytesMut};

use super::config::Config;
use super::error::{ConnectionError, ErrorCode};
use super::flow::{DEFAULT_WINDOW, MAX_WINDOW};
use super::frame::{self, FrameHeader, kind};
use super::role::Role;

mod id {
    pub(super) const HEADER_TABLE_SIZE: u16 = 0x1;
    pub(super) const ENABLE_PUSH: u16 = 0x2;
    pub(super) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub(super) const INITIAL_WINDOW_SIZE: u16 = 0x4;
    pub(super) const MAX_FRAME_SIZE: u16 = 0x5;
    pub(super) const MAX_HEADER_LIST_SIZE: u16 = 0x6;
    /// A setting of our own. See docs/descriptors.md.
    pub(super) const DESCRIPTORS: u16 = 0xfd00;
    /// GRPC_ALLOW_TRUE_BINARY_METADATA, which only gRPC's C core sends.
    pub(super) const TRUE_BINARY_METADATA: u16 = 0xfe03;
}

/// The peer's settings. Before the first frame they have the values of RFC 9113 §6.5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerSettings {
    pub(super) max_concurrent_streams: u32,
    pub(super) initial_window_size: u32,
    pub(super) max_frame_size: u32,
    pub(super) max_header_list_size: u32,
    /// How many descriptors may come with one head.
    pub(super) descriptors: u32,
    /// Whether the peer is gRPC's C core (C++, Python, Ruby, PHP).
    pub(super) is_grpc_core: bool,
}

/// The header table sizes in one frame. The smallest counts as well as the last, because entries
/// that were evicted in between stay evicted (RFC 7541 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TableSizes {
    pub(super) smallest: u32,
    pub(super) last: u32,
}

impl PeerSettings {
    pub(super) fn new() -> Self {
        Self {
            max_concurrent_streams: u32::MAX,
            initial_window_size: DEFAULT_WINDOW,
            max_frame_size: frame::DEFAULT_MAX_SIZE,
            max_header_list_size: u32::MAX,
            descriptors: 0,
            is_grpc_core: false,
        }
    }

    /// Applies a frame's values in their order. `role` is this end's.
    pub(super) fn apply(
        &mut self,
        payload: &[u8],
        role: Role,
    ) -> Result<Option<TableSizes>, ConnectionError> {
        let mut table: Option<TableSizes> = None;
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(ConnectionError::frame_size("SETTINGS is no multiple of six bytes"));
        }
        for &[i0, i1, v0, v1, v2, v3] in settings {
            let value = u32::from_be_bytes([v0, v1, v2, v3]);
            match u16::from_be_bytes([i0, i1]) {
                id::HEADER_TABLE_SIZE => {
                    let smallest = table.map_or(value, |sizes| sizes.smallest.min(value));
                    table = Some(TableSizes { smallest, last: value });
                }
                id::ENABLE_PUSH => match (value, role) {
                    (0, _) | (1, Role::Server) => {}
                    (1, Role::Client) => {
                        return Err(ConnectionError::protocol(
                            "a server set SETTINGS_ENABLE_PUSH to 1",
                        ));
                    }
                    _ => {
                        return Err(ConnectionError::protocol(
                            "SETTINGS_ENABLE_PUSH is neither 0 nor 1",
                        ));
                    }
                },
                id::MAX_CONCURRENT_STREAMS => self.max_concurrent_streams = value,
                id::INITIAL_WINDOW_SIZE if value > MAX_WINDOW => {
                    return Err(ConnectionError::peer(
                        ErrorCode::FLOW_CONTROL_ERROR,
                        "SETTINGS_INITIAL_WINDOW_SIZE is beyond 2^31-1",
                    ));
                }
                id::INITIAL_WINDOW_SIZE => self.initial_window_size = value,
                id::MAX_FRAME_SIZE if !(frame::DEFAULT_MAX_SIZE..1 << 24).contains(&value) => {
                    return Err(ConnectionError::protocol(
                        "SETTINGS_MAX_FRAME_SIZE is out of range",
                    ));
                }
                id::MAX_FRAME_SIZE => self.max_frame_size = value,
                id::MAX_HEADER_LIST_SIZE => self.max_header_list_size = value,
                id::DESCRIPTORS => self.descriptors = value,
                id::TRUE_BINARY_METADATA => self.is_grpc_core = true,
                // Unknown ones are ignored (§6.5.2).
                _ => {}
            }
        }
        Ok(table)
    }
}

/// Writes our SETTINGS frame, with the values that differ from those that a peer assumes.
pub(super) fn write_ours(config: &Config, role: Role, out: &mut BytesMut) {
    let mut settings = [(0u16, 0u32); 6];
    let mut count = 0;
    let mut set = |id, value| {
        settings[count] = (id, value);
        count += 1;
    };
    match role {
        Role::Client => set(id::ENABLE_PUSH, 0),
        Role::Server => set(id::MAX_CONCURRENT_STREAMS, config.max_streams),
    }
    set(id::INITIAL_WINDOW_SIZE, config.stream_window);
    if config.max_frame_size != frame::DEFAULT_MAX_SIZE {
        set(id::MAX_FRAME_SIZE, config.max_frame_size);
    }
    set(id::MAX_HEADER_LIST_SIZE, config.max_header_list_size);
    if config.descriptors > 0 {
        set(id::DESCRIPTORS, u32::from(config.descriptors));
    }
    let header = FrameHeader { len: count as u32 * 6, kind: kind::SETTINGS, flags: 0, stream: 0 };
    out.put_slice(&header.bytes());
    for (id, value) in &settings[..count] {
        out.put_u16(*id);
        out.put_u32(*value);
    }
}

//! [`CallMemory`]: what a call keeps of its request while that arrives.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::shared::Shared;
use crate::http2::StreamKey;

/// Counts what a call keeps of a message that is still arriving, as a part of what its connection
/// holds. It ends with the call.
#[derive(Debug)]
pub(crate) struct CallMemory {
    shared: Arc<Shared>,
    key: StreamKey,
    bytes: usize,
}

impl CallMemory {
    pub(super) fn new(shared: Arc<Shared>, key: StreamKey) -> Self {
        Self { shared, key, bytes: 0 }
    }

    /// Counts more bytes, which are kept until the call has ended.
    pub(crate) fn hold(&self, bytes: usize) {
        if bytes > 0 {
            self.shared.lock().h2.hold(self.key, bytes);
        }
    }

    /// Sets how many bytes are kept now. The connection's next turn counts them.
    pub(crate) fn set(&mut self, bytes: usize) {
        let earlier = std::mem::replace(&mut self.bytes, bytes);
        if bytes > earlier {
            self.shared.arriving.fetch_add(bytes - earlier, Ordering::Relaxed);
        } else if bytes < earlier {
            self.shared.arriving.fetch_sub(earlier - bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for CallMemory {
    fn drop(&mut self) {
        self.set(0);
    }
}

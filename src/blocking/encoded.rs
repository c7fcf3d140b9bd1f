//! [`Encoded`]: the only message of a request, as it is sent.

use bytes::Bytes;
use prost::Message;
use tonic::Status;

use crate::driver::EncodeBuffer;
use crate::http2::{self, LARGE, StreamKey};
use crate::stubs::ClientOptions;

/// A message with its prefix, which can be sent several times.
pub(super) enum Encoded {
    /// It is copied when it is sent.
    Small(EncodeBuffer),
    Large(Bytes),
}

impl Encoded {
    /// Encodes the message of a request.
    ///
    /// # Errors
    ///
    /// RESOURCE_EXHAUSTED if the message is larger than the options allow.
    pub(super) fn of<Q: Message>(message: Q, options: &ClientOptions) -> Result<Self, Status> {
        let mut buffer = EncodeBuffer::take();
        options.encode(&message, &mut buffer)?;
        Ok(match buffer.len() < LARGE {
            true => Self::Small(buffer),
            false => Self::Large(std::mem::take(&mut *buffer).into()),
        })
    }

    /// Returns the size in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Small(buffer) => buffer.len(),
            Self::Large(bytes) => bytes.len(),
        }
    }

    /// Sends it as the whole body of a request.
    pub(super) fn send(&mut self, h2: &mut http2::Connection, key: StreamKey) {
        match self {
            Self::Small(buffer) => h2.send_small(key, buffer, true),
            Self::Large(bytes) => h2.send_data(key, bytes.clone(), true),
        };
    }
}

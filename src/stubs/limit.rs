//! [`Limit`]: the largest size of a message, and what an error says when a message is larger.

use tonic::Status;

/// The largest size of a message in bytes, and the end that has set it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(super) bytes: usize,
    end: End,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Client,
    Server,
}

impl End {
    /// Returns the end's name, and what it sends and receives.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Client => ("client", "request", "response"),
            Self::Server => ("server", "response", "request"),
        }
    }
}

impl Limit {
    /// Returns a limit that the generated client has set.
    pub(super) const fn of_client(bytes: usize) -> Self {
        Self { bytes, end: End::Client }
    }

    /// Returns a limit that the generated server has set.
    pub(super) const fn of_server(bytes: usize) -> Self {
        Self { bytes, end: End::Server }
    }

    /// Returns the status for a received message of `length` bytes, which is too large.
    #[cold]
    pub(super) fn received_too_large(self, length: usize) -> Status {
        let Self { bytes: limit, end } = self;
        let (end, _, message) = end.names();
        Status::resource_exhausted(format!(
            "the message of a {message} is larger ({length} bytes) than the {end}'s limit ({limit} \
             bytes): raise max_decoding_message_size of the generated {end}"
        ))
    }

    /// Returns the status for a received message that is too large once it is decompressed.
    #[cold]
    pub(super) fn decompressed_too_large(self) -> Status {
        let Self { bytes: limit, end } = self;
        let (end, _, message) = end.names();
        Status::resource_exhausted(format!(
            "the message of a {message} is larger, once it is decompressed, than the {end}'s limit \
             ({limit} bytes): raise max_decoding_message_size of the generated {end}"
        ))
    }

    /// Returns the status for a message of `length` bytes to be sent, which is too large.
    #[cold]
    pub(super) fn sent_too_large(self, length: usize) -> Status {
        let Self { bytes: limit, end } = self;
        let (end, message, _) = end.names();
        let text = if length > limit {
            format!(
                "the message of a {message} is larger ({length} bytes) than the {end}'s limit \
                 ({limit} bytes): raise max_encoding_message_size of the generated {end}"
            )
        } else {
            format!(
                "the message of a {message} is larger ({length} bytes) than any message of gRPC \
                 ({} bytes): send it in parts",
                u32::MAX
            )
        };
        Status::resource_exhausted(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_beyond_what_grpc_can_send_is_not_blamed_on_a_setter() {
        let limit = Limit::of_client(usize::MAX);
        let status = limit.sent_too_large(5 << 30);
        assert!(status.message().contains("send it in parts"), "{status}");
        assert!(!status.message().contains("max_encoding"), "{status}");
    }
}

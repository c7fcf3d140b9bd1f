//! What the stubs of both clients have, the asynchronous one and the blocking one.

const RUNTIME: &str = "::samehost::codegen";

/// The functions that every client has of its own, and the functions of the prelude's traits that
/// would be called instead of a method of this name.
pub(crate) const OWN_FUNCTIONS: [&str; 12] = [
    "new",
    "with_origin",
    "with_interceptor",
    "send_compressed",
    "accept_compressed",
    "max_decoding_message_size",
    "max_encoding_message_size",
    "clone",
    "clone_into",
    "into",
    "to_owned",
    "try_into",
];

/// Returns the functions that set a client's options.
pub(crate) fn setters() -> String {
    format!(
        "/// Compresses requests this way. A server that does not accept it answers UNIMPLEMENTED.
        #[must_use]
        pub fn send_compressed(mut self, encoding: {RUNTIME}::CompressionEncoding) -> Self {{
            self.inner.options().send_compressed(encoding);
            self
        }}

        /// Accepts responses with this compression. Default: only responses without compression.
        #[must_use]
        pub fn accept_compressed(mut self, encoding: {RUNTIME}::CompressionEncoding) -> Self {{
            self.inner.options().accept_compressed(encoding);
            self
        }}

        /// Sets the largest size of a received message, in bytes. A larger one ends its call with
        /// RESOURCE_EXHAUSTED. Default: 4 MiB.
        #[must_use]
        pub fn max_decoding_message_size(mut self, limit: usize) -> Self {{
            self.inner.options().max_decoding_message_size(limit);
            self
        }}

        /// Sets the largest size of a sent message, in bytes. Default: no limit.
        #[must_use]
        pub fn max_encoding_message_size(mut self, limit: usize) -> Self {{
            self.inner.options().max_encoding_message_size(limit);
            self
        }}"
    )
}

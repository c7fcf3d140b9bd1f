//! [`MessagePosition`]: the position of a body in its messages.

/// The position of a body in its messages. Each message has a prefix: whether it is compressed, and
/// four bytes of length (gRPC over HTTP/2, Length-Prefixed-Message).
#[derive(Debug, Default)]
pub(super) struct MessagePosition {
    prefix: [u8; 5],
    prefix_len: usize,
    /// The number of bytes to come of a message whose prefix has come.
    left: usize,
    /// The number of bytes that have come of an incomplete message, with its prefix.
    bytes: usize,
    /// The number of messages that are complete.
    complete: usize,
    /// The size of the first message, with its prefix.
    first: usize,
}

impl MessagePosition {
    /// Returns the number of bytes that have come of an incomplete message, with its prefix.
    pub(super) fn incomplete(&self) -> usize {
        self.bytes
    }

    /// Returns the size of the single message of a body that has ended, with its prefix, or 0 if
    /// there were several.
    pub(super) fn only(&self) -> usize {
        if self.complete == 1 { self.first } else { 0 }
    }

    /// Moves the position past the next part of the body.
    pub(super) fn take(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let taken = if self.left > 0 {
                let taken = data.len().min(self.left);
                self.left -= taken;
                taken
            } else {
                let taken = data.len().min(self.prefix.len() - self.prefix_len);
                self.prefix[self.prefix_len..][..taken].copy_from_slice(&data[..taken]);
                self.prefix_len += taken;
                if self.prefix_len == self.prefix.len() {
                    let [_, length @ ..] = self.prefix;
                    self.left = u32::from_be_bytes(length) as usize;
                    self.prefix_len = 0;
                }
                taken
            };
            self.bytes += taken;
            if self.left == 0 && self.prefix_len == 0 {
                if self.complete == 0 {
                    self.first = self.bytes;
                }
                self.complete += 1;
                self.bytes = 0;
            }
            data = &data[taken..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_incomplete_is_counted_however_it_is_cut() {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for length in [0_u32, 1, 300, 0, 5] {
            bytes.push(0);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.resize(bytes.len() + length as usize, 7);
            expected.extend(1..5 + length as usize);
            expected.push(0);
        }
        for size in [1, 2, 3, 5, 7, 64, bytes.len()] {
            let mut message = MessagePosition::default();
            let mut came = 0;
            for piece in bytes.chunks(size) {
                message.take(piece);
                came += piece.len();
                assert_eq!(message.incomplete(), expected[came - 1], "{came} in pieces of {size}");
                let only =
                    expected[..came].iter().filter(|incomplete| **incomplete == 0).count() == 1;
                assert_eq!(message.only(), if only { 5 } else { 0 }, "{came} in pieces of {size}");
            }
        }
    }
}

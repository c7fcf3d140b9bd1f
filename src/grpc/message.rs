//! [`MessagePosition`]: the position of a body in its messages.

use tonic::Status;

/// The size of a message's prefix in bytes.
pub(crate) const PREFIX: usize = 5;

/// Returns the status for data that ended within a message.
pub(crate) fn cut_off() -> Status {
    Status::internal("the data ended inside a message")
}

/// The position of a body in its messages. Each message has a prefix: whether it is compressed, and
/// four bytes of length (gRPC over HTTP/2, Length-Prefixed-Message).
#[derive(Debug, Default)]
pub(super) struct MessagePosition {
    prefix: [u8; PREFIX],
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
    #[inline]
    pub(super) fn take(&mut self, mut data: &[u8]) {
        loop {
            // The usual case: messages that begin and end in this part.
            while self.bytes == 0
                && let Some((&[_, length @ ..], rest)) = data.split_first_chunk::<PREFIX>()
                && let Some(rest) = rest.get(u32::from_be_bytes(length) as usize..)
            {
                self.complete(data.len() - rest.len());
                data = rest;
            }
            if data.is_empty() {
                return;
            }
            data = self.take_cut(data);
        }
    }

    /// Moves the position to the end of the incomplete message, or of the part. Returns how many bytes of the
    /// part belong to that message.
    pub(super) fn take_rest(&mut self, data: &[u8]) -> usize {
        let mut rest = data;
        while self.bytes > 0 && !rest.is_empty() {
            rest = self.take_cut(rest);
        }
        data.len() - rest.len()
    }

    /// Moves the position to the end of a prefix or a message that is cut, or of the part. Returns the
    /// rest of the part.
    fn take_cut<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let taken = if self.left > 0 {
            let taken = data.len().min(self.left);
            self.left -= taken;
            taken
        } else {
            let taken = data.len().min(PREFIX - self.prefix_len);
            self.prefix[self.prefix_len..][..taken].copy_from_slice(&data[..taken]);
            self.prefix_len += taken;
            if self.prefix_len == PREFIX {
                let [_, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length) as usize;
                self.prefix_len = 0;
            }
            taken
        };
        self.bytes += taken;
        if self.left == 0 && self.prefix_len == 0 {
            let size = std::mem::take(&mut self.bytes);
            self.complete(size);
        }
        &data[taken..]
    }

    /// Counts a message of so many bytes, with its prefix.
    #[inline]
    fn complete(&mut self, size: usize) {
        if self.complete == 0 {
            self.first = size;
        }
        self.complete += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_message_ends_where_the_next_one_begins() {
        let bytes = [&[0, 0, 0, 0, 3][..], b"abc", &[0, 0, 0, 0, 2], b"de"].concat();
        for cut in 0..=bytes.len() {
            let (began, rest) = bytes.split_at(cut);
            let mut message = MessagePosition::default();
            message.take(began);
            let expected = match cut {
                0 | 8 => 0,
                1..8 => 8 - cut,
                _ => bytes.len() - cut,
            };
            assert_eq!(message.take_rest(rest), expected, "{cut}");
            assert_eq!(message.incomplete(), 0);
        }
    }

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

//! Bodies of messages to be sent: [`WholeBody`] has one message that is already encoded,
//! [`StreamBody`] a stream of messages.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use prost::Message;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::codegen::tokio_stream::Stream;

use super::batch_buffer::{self, BATCH, ROOM};
use super::cancellation::Cancelled;
use super::framing::{encode, encode_parts, encode_sized, sent_len};
use super::limit::Limit;
use super::message_buffer::SMALL;
use super::message_parts::MessageParts;
use crate::grpc::{PREFIX, ok_trailers, trailers_of};

/// One encoded message, and on a server the trailers.
#[derive(Debug)]
pub(super) struct WholeBody {
    data: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl WholeBody {
    pub(super) fn new(message: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self { data: Some(message), trailers }
    }
}

impl Body for WholeBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match self.data.take() {
            Some(data) => Some(Frame::data(data)),
            None => self.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

/// How messages are encoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encoding {
    pub(super) compression: Option<CompressionEncoding>,
    /// The largest message in bytes.
    pub(super) limit: Limit,
}

pin_project! {
    /// A stream's messages. A server's body ends with trailers. A client's body fails if the stream
    /// cannot be sent.
    pub(super) struct StreamBody<S> {
        #[pin]
        messages: S,
        encoding: Encoding,
        is_server: bool,
        cancelled: Option<Cancelled>,
        // The messages that are encoded and not yet sent.
        parts: MessageParts,
        // The size of the largest of the last batches. The next is likely to be as large.
        expected: usize,
        state: StreamState,
    }
}

/// Appends a message to those that are sent together. A large one has parts of its own. `expected` is
/// the size that they are likely to have together, in bytes.
fn append<M: Message>(
    message: &M,
    Encoding { compression, limit }: Encoding,
    expected: usize,
    parts: &mut MessageParts,
) -> Result<(), Status> {
    let buffer = &mut parts.buffer;
    if compression.is_some() {
        return encode(message, compression, limit, buffer);
    }
    let length = sent_len(message, limit)?;
    let size = PREFIX + length as usize;
    if size > SMALL {
        encode_parts(message, length, parts);
        return Ok(());
    }
    if buffer.capacity() - buffer.len() < size {
        if buffer.is_empty() && expected <= BATCH / 2 {
            buffer.reserve_exact(expected.max(size));
        } else {
            make_room(buffer, size);
        }
    }
    encode_sized(message, length, buffer);
    Ok(())
}

/// Makes room for a whole batch, whose last message may be this one and end beyond the usual size.
fn make_room(buffer: &mut Vec<u8>, size: usize) {
    let more = BATCH.saturating_sub(buffer.len()) + size;
    if buffer.len() + more > ROOM {
        return buffer.reserve_exact(more);
    }
    let begun = mem::replace(buffer, batch_buffer::take());
    buffer.extend_from_slice(&begun);
}

/// How far a stream has come.
#[derive(Debug)]
enum StreamState {
    More,
    /// The stream ends with trailers or an error, once what is encoded was sent.
    Ending(Result<(), Status>),
    Ended,
}

impl<S> StreamBody<S> {
    pub(super) fn server(messages: S, encoding: Encoding) -> Self {
        Self::new(messages, encoding, true, None)
    }

    pub(super) fn client(
        messages: S,
        encoding: Encoding,
        cancelled: Option<Cancelled>,
    ) -> StreamBody<Infallible<S>> {
        StreamBody::new(Infallible { stream: messages }, encoding, false, cancelled)
    }

    fn new(messages: S, encoding: Encoding, is_server: bool, cancelled: Option<Cancelled>) -> Self {
        let (parts, expected, state) = (MessageParts::default(), 0, StreamState::More);
        Self { messages, encoding, is_server, cancelled, parts, expected, state }
    }
}

impl<S, M> Body for StreamBody<S>
where
    S: Stream<Item = Result<M, Status>>,
    M: Message,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        if let Some(cancelled) = this.cancelled
            && matches!(this.state, StreamState::More)
            && Pin::new(cancelled).poll_cancelled(cx).is_ready()
        {
            this.parts.clear();
            *this.state = StreamState::Ending(Err(Cancelled::status()));
        }
        while matches!(this.state, StreamState::More)
            && this.parts.is_empty()
            && this.parts.buffer.len() < BATCH
        {
            match this.messages.as_mut().poll_next(cx) {
                Poll::Pending if this.parts.buffer.is_empty() => return Poll::Pending,
                Poll::Pending => break,
                Poll::Ready(Some(Ok(message))) => {
                    let appended = append(&message, *this.encoding, *this.expected, this.parts);
                    if let Err(status) = appended {
                        *this.state = StreamState::Ending(Err(status));
                    }
                }
                Poll::Ready(Some(Err(status))) => *this.state = StreamState::Ending(Err(status)),
                Poll::Ready(None) => *this.state = StreamState::Ending(Ok(())),
            }
        }
        if let Some(part) = this.parts.pop() {
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        let buffer = &mut this.parts.buffer;
        if !buffer.is_empty() {
            // A short batch between long ones changes little.
            *this.expected = buffer.len().max(*this.expected - *this.expected / 4);
            return Poll::Ready(Some(Ok(Frame::data(batch_buffer::seal(mem::take(buffer))))));
        }
        Poll::Ready(match mem::replace(this.state, StreamState::Ended) {
            StreamState::Ending(Ok(())) if *this.is_server => {
                Some(Ok(Frame::trailers(ok_trailers())))
            }
            StreamState::Ending(Err(status)) if *this.is_server => {
                Some(trailers_of(&status).map(Frame::trailers))
            }
            StreamState::Ending(Err(status)) => Some(Err(status)),
            StreamState::More | StreamState::Ending(Ok(())) | StreamState::Ended => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, StreamState::Ended)
    }
}

pin_project! {
    /// Turns a stream that cannot fail into one that can.
    pub(super) struct Infallible<S> {
        #[pin]
        stream: S,
    }
}

impl<S: Stream> Stream for Infallible<S> {
    type Item = Result<S::Item, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.project().stream.poll_next(cx).map(|item| item.map(Ok))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stream.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts how often the memory of a batch of these messages is allocated again.
    fn growths(messages: usize, size: usize, expected: usize) -> usize {
        let (mut parts, mut growths) = (MessageParts::default(), 0);
        let encoding = Encoding { compression: None, limit: Limit::of_client(usize::MAX) };
        for _ in 0..messages {
            let before = parts.buffer.capacity();
            append(&vec![7_u8; size], encoding, expected, &mut parts).unwrap();
            growths += usize::from(parts.buffer.capacity() != before);
        }
        growths
    }

    #[test]
    fn a_batch_is_hardly_ever_moved() {
        // The sum is the first one beyond the size of a batch.
        for (messages, size) in [(17, 1_000), (161, 95), (2, 10_000)] {
            assert_eq!(growths(messages, size, BATCH), 1, "{size}");
            assert_eq!(growths(messages, size, 0), 2, "{size}");
        }
    }
}

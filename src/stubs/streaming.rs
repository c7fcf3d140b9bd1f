//! [`streaming`]: turns arriving messages into tonic's `Streaming`.
//!
//! tonic finds messages in bytes by itself, and does some of that wrong. So it does not get the
//! bytes of messages. [`Feed`] finds and decodes the messages, and puts them into a queue. It shows
//! tonic an empty message for each, and for that [`Take`] takes a message out of the queue. Errors
//! take the same way, so that each arrives once, after the messages before it.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use prost::Message;
use tonic::body::Body;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};
use tonic::{Code, Status, Streaming};

use super::cancellation::Cancelled;
use super::framing::Deframer;
use super::metadata::outcome;
use crate::grpc::{PREFIX, cut_off};

/// The maximum number of messages that are decoded at a time. Decoded messages may be much larger
/// than their bytes, so one that is compressed is the last one. glibc's malloc keeps seven freed blocks of
/// a size at hand, so that the messages of one batch get the memory of the last one.
const DECODED_AT_A_TIME: usize = 7;

/// Empty messages.
static EMPTY: [u8; DECODED_AT_A_TIME * PREFIX] = [0; DECODED_AT_A_TIME * PREFIX];

/// What the end of a body means.
#[derive(Debug)]
pub(super) enum BodyEnd {
    Request,
    Response {
        http: StatusCode,
        /// The status in the head. It counts only if nothing follows.
        status: Option<Status>,
        cancelled: Option<Cancelled>,
    },
}

/// Returns the messages of a body.
pub(super) fn streaming<M>(body: Body, messages: Deframer, end: BodyEnd) -> Streaming<M>
where
    M: Message + Default + 'static,
{
    let queue = Arc::new(MessageQueue::default());
    let take = Take { taken: VecDeque::new(), queue: Arc::clone(&queue) };
    let is_request = matches!(end, BodyEnd::Request);
    let feed = Feed { body: Some(body), messages, queue, end, empty: true };
    if is_request {
        Streaming::new_request(take, feed, None, None)
    } else {
        // The feed itself deals with the trailers.
        Streaming::new_empty(take, feed)
    }
}

/// The queue between a [`Feed`] and its [`Take`], which tonic calls in turn.
struct MessageQueue<M>(Mutex<VecDeque<Result<M, Status>>>);

impl<M> Default for MessageQueue<M> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<M> MessageQueue<M> {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Result<M, Status>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a decoded message for each empty one.
struct Take<M> {
    taken: VecDeque<Result<M, Status>>,
    queue: Arc<MessageQueue<M>>,
}

impl<M> Decoder for Take<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        if self.taken.is_empty() {
            mem::swap(&mut self.taken, &mut self.queue.lock());
        }
        self.taken.pop_front().transpose()
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(0, 0)
    }
}

/// Puts a body's messages into the queue, and returns an empty message for each.
struct Feed<M> {
    /// `None` once nothing more can come.
    body: Option<Body>,
    messages: Deframer,
    queue: Arc<MessageQueue<M>>,
    end: BodyEnd,
    /// Whether no data has come.
    empty: bool,
}

impl<M: Message + Default> Feed<M> {
    /// Decodes messages that have arrived. Returns how many there are to take, including a failure.
    fn decode(&mut self) -> usize {
        let mut queue = self.queue.lock();
        for count in 0..DECODED_AT_A_TIME {
            match self.messages.next() {
                Ok(Some(message)) => {
                    queue.push_back(Ok(message));
                    if self.messages.was_compressed() {
                        return count + 1;
                    }
                }
                Ok(None) => return count,
                Err(status) => {
                    queue.push_back(Err(status));
                    drop(queue);
                    self.body = None;
                    return count + 1;
                }
            }
        }
        DECODED_AT_A_TIME
    }

    fn fail(&mut self, status: Status) -> Frame<Bytes> {
        self.body = None;
        self.queue.lock().push_back(Err(status));
        empty_messages(1)
    }

    /// Deals with the end of the body.
    fn finish(&mut self, trailers: Option<HeaderMap>) -> Option<Frame<Bytes>> {
        self.body = None;
        let is_cut_off = !self.messages.is_empty();
        let outcome = match &mut self.end {
            BodyEnd::Request if is_cut_off => Err(cut_off()),
            BodyEnd::Request => Ok(()),
            BodyEnd::Response { http, status, .. } => match (status.take(), &trailers) {
                (Some(status), None) if self.empty && status.code() == Code::Ok => Ok(()),
                (Some(status), None) if self.empty => Err(status),
                _ => outcome(trailers.as_ref(), *http, is_cut_off),
            },
        };
        match outcome {
            Ok(()) => trailers.map(Frame::trailers),
            Err(status) => Some(self.fail(status)),
        }
    }

    fn is_cancelled(&mut self, cx: &mut Context<'_>) -> bool {
        let BodyEnd::Response { cancelled: Some(cancelled), .. } = &mut self.end else {
            return false;
        };
        Pin::new(cancelled).poll_cancelled(cx).is_ready()
    }
}

/// Returns empty messages, so that tonic asks for so many.
fn empty_messages(count: usize) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(&EMPTY[..count * PREFIX]))
}

impl<M: Message + Default> http_body::Body for Feed<M> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if this.body.is_none() {
                return Poll::Ready(None);
            }
            let decoded = this.decode();
            if decoded > 0 {
                return Poll::Ready(Some(Ok(empty_messages(decoded))));
            }
            if this.is_cancelled(cx) {
                return Poll::Ready(Some(Ok(this.fail(Cancelled::status()))));
            }
            let Some(body) = &mut this.body else { return Poll::Ready(None) };
            let frame = match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(status)) => return Poll::Ready(Some(Ok(this.fail(status)))),
                None => return Poll::Ready(this.finish(None).map(Ok)),
            };
            match frame.into_data() {
                Ok(data) => {
                    this.empty &= data.is_empty();
                    this.messages.push(data);
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().ok();
                    return Poll::Ready(this.finish(trailers).map(Ok));
                }
            }
        }
    }
}

impl<M> fmt::Debug for Feed<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("end", &self.end).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tonic::codec::CompressionEncoding;

    use super::*;
    use crate::stubs::compression::ReceivedEncoding;
    use crate::stubs::framing::encode;
    use crate::stubs::limit::Limit;

    /// Returns how many of five messages that have arrived are decoded at a time.
    fn decoded_at_a_time(received: ReceivedEncoding, sent: Option<CompressionEncoding>) -> usize {
        let mut data = Vec::new();
        for _ in 0..5 {
            encode(&vec![7_u8; 1_000], sent, Limit::of_client(usize::MAX), &mut data).unwrap();
        }
        let mut messages = Deframer::new(received, Limit::of_client(1 << 20));
        messages.push(data.into());
        let queue = Arc::new(MessageQueue::<Vec<u8>>::default());
        let end = BodyEnd::Request;
        Feed { body: None, messages, queue, end, empty: false }.decode()
    }

    #[test]
    fn one_compressed_message_is_decoded_at_a_time() {
        const GZIP: CompressionEncoding = CompressionEncoding::Gzip;
        assert_eq!(decoded_at_a_time(ReceivedEncoding::Compressed(GZIP), Some(GZIP)), 1);
        assert_eq!(decoded_at_a_time(ReceivedEncoding::Compressed(GZIP), None), 5);
        assert_eq!(decoded_at_a_time(ReceivedEncoding::Identity, None), 5);
    }
}

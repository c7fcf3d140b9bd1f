//! Events: what a connection tells its driver, and on which stream it happened. Data that arrived
//! stays with its stream until it is read.

use std::collections::VecDeque;

use bytes::Bytes;

use super::error::ErrorCode;
use super::key::StreamKey;
use super::news::News;
use super::spare::trim;
use super::stream::{Stream, Streams};

/// An event. No event concerns a stream after [`Connection::forget`](super::Connection::forget).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProtocolEvent {
    /// The peer's preface and first SETTINGS have come: it speaks HTTP/2.
    Ready,
    /// Server: a request came. [`take_request`](super::Connection::take_request) returns it, with
    /// the part of its body that has arrived by then.
    Opened(StreamKey),
    /// A response's head, a part of a body or the message's end came. Call
    /// [`take_response`](super::Connection::take_response) or [`read`](super::Connection::read).
    Readable(StreamKey),
    /// The data that [`send_data`](super::Connection::send_data) queued was sent, so more can be
    /// sent.
    Writable(StreamKey),
    /// The stream ended early. Nothing more can be sent on it, and reading tells why.
    Reset(StreamKey),
    /// Client: a request that got [`NotNow::NoSlot`](super::NotNow::NoSlot) may be sent now.
    SlotsAvailable,
    /// The peer takes no new streams. [`peer_go_away`](super::Connection::peer_go_away) has its
    /// announcement. Streams that it has not processed are reset, each with its own event after
    /// this one.
    GoAway,
}

/// The peer's last GOAWAY (RFC 9113 §6.8).
#[derive(Clone, Debug)]
pub(crate) struct GoAway {
    pub(crate) last_stream: u32,
    pub(crate) code: ErrorCode,
    /// The beginning of its debug data.
    pub(crate) debug: Bytes,
}

/// Takes a stream's next event, if there is one.
#[inline]
fn next(news: &mut News, key: StreamKey) -> Option<ProtocolEvent> {
    if news.take(News::OPENED) {
        Some(ProtocolEvent::Opened(key))
    } else if news.take(News::READABLE) {
        Some(ProtocolEvent::Readable(key))
    } else if news.take(News::WRITABLE) {
        Some(ProtocolEvent::Writable(key))
    } else if news.take(News::RESET) {
        Some(ProtocolEvent::Reset(key))
    } else {
        None
    }
}

/// Events that were not polled yet. The events of one stream are a set in the stream, so there are
/// never more than there are streams.
#[derive(Debug, Default)]
pub(super) struct Events {
    connection: News,
    /// Streams with news, each once. Streams that have ended stay here for a while.
    streams: VecDeque<StreamKey>,
}

impl Events {
    pub(super) fn ready(&mut self) {
        self.connection.add(News::READY);
    }

    pub(super) fn go_away(&mut self) {
        self.connection.add(News::GO_AWAY);
    }

    pub(super) fn slots_available(&mut self) {
        self.connection.add(News::SLOTS);
    }

    /// Adds to a stream's news.
    #[inline]
    pub(super) fn tell(&mut self, key: StreamKey, stream: &mut Stream, news: News) {
        if stream.forgotten {
            return;
        }
        if stream.news.is_empty() {
            self.streams.push_back(key);
        }
        stream.news.add(news);
    }

    /// Drops entries of ended streams before they can outnumber the others.
    #[inline]
    pub(super) fn bound(&mut self, streams: &Streams) {
        if self.streams.len() > 2 * streams.len() + 16 {
            self.streams.retain(|key| streams.get(*key).is_some());
        }
    }

    /// Takes the next event. The connection's events come before those of streams, and a stream's
    /// come in their natural order.
    #[inline]
    pub(super) fn poll(&mut self, streams: &mut Streams) -> Option<ProtocolEvent> {
        if !self.connection.is_empty() {
            if self.connection.take(News::READY) {
                return Some(ProtocolEvent::Ready);
            }
            if self.connection.take(News::GO_AWAY) {
                return Some(ProtocolEvent::GoAway);
            }
        }
        while let Some(key) = self.streams.front().copied() {
            let event = streams.get_mut(key).and_then(|stream| {
                let event = next(&mut stream.news, key)?;
                Some((event, stream.news.is_empty()))
            });
            match event {
                Some((event, last)) => {
                    if last {
                        self.streams.pop_front();
                    }
                    return Some(event);
                }
                None => {
                    self.streams.pop_front();
                }
            }
        }
        self.connection.take(News::SLOTS).then_some(ProtocolEvent::SlotsAvailable)
    }

    /// Returns whether there is no event.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.connection.is_empty() && self.streams.is_empty()
    }

    pub(super) fn trim(&mut self) {
        trim(&mut self.streams);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.streams.capacity()
    }
}

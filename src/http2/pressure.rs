//! [`Pressure`]: who gets window while memory is short. One request at a time, the oldest first, so
//! that what has begun can finish and the others wait where they are.

use super::connection::Connection;
use super::frame::kind;
use super::key::StreamKey;
use super::stream::{Receiving, Stream};

#[derive(Debug, Default)]
pub(super) struct Pressure {
    /// Memory is short.
    is_on: bool,
    /// The stream of the request that gets window meanwhile. 0: none does.
    first: u32,
}

impl Pressure {
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }
}

/// Whether a request is under way: some of its window is used up.
fn is_under_way(stream: &Stream) -> bool {
    let window = &stream.receive_window;
    stream.receiving == Receiving::Body && window.available() < window.size()
}

impl Connection {
    /// While memory is short only one request gets window. The driver says so in each of its turns.
    #[inline]
    pub(crate) fn set_pressed(&mut self, is_on: bool) {
        if is_on || self.pressure.is_on {
            self.press(is_on);
        }
    }

    #[cold]
    fn press(&mut self, is_on: bool) {
        self.pressure.is_on = is_on;
        if is_on {
            self.first_under_pressure();
            return;
        }
        self.pressure.first = 0;
        // What was held back.
        for key in self.streams.keys() {
            self.give_back(key);
        }
    }

    /// The peer does not go on with the request that it got window for: another one gets some.
    pub(crate) fn give_to_another(&mut self) {
        if self.pressure.is_on {
            self.choose(self.pressure.first);
        }
    }

    /// Whether the peer has to go on: it has not sent the rest of a request, or does not take what is
    /// to be sent.
    pub(crate) fn waits_for_peer(&mut self) -> bool {
        let unsent = self.write_buffer.len() > 0 || self.outflow.queued() > 0;
        unsent
            || self.streams.iter_mut().any(|(_, stream)| {
                let may_send = stream.receive_window.available() > 0;
                stream.receiving == Receiving::Body && stream.unread == 0 && may_send
            })
    }

    /// Bytes of a stream's data are no longer kept. Returns the increment of its window to announce, if
    /// it is time to.
    #[inline]
    pub(super) fn window_after(&mut self, key: StreamKey, bytes: u32) -> Option<u32> {
        if self.pressure.is_on {
            return self.window_under_pressure(key, bytes);
        }
        let growth = self.received.growth();
        let window = &mut self.streams.get_mut(key)?.receive_window;
        let before = window.size();
        let max = self.config.max_stream_window.min(before.saturating_add(growth));
        let increment = window.consume(bytes, max)?;
        self.received.note_grown(window.size() - before);
        self.received.note_used(window.size());
        Some(increment)
    }

    #[cold]
    fn window_under_pressure(&mut self, key: StreamKey, bytes: u32) -> Option<u32> {
        let is_first = self.first_under_pressure() == Some(key);
        let window = &mut self.streams.get_mut(key)?.receive_window;
        if is_first {
            return window.release(bytes);
        }
        window.hold_back(bytes);
        None
    }

    /// The request that gets window: the oldest that is under way, until it has arrived.
    fn first_under_pressure(&mut self) -> Option<StreamKey> {
        match self.find(self.pressure.first) {
            Some((key, stream)) if stream.receiving == Receiving::Body => Some(key),
            _ => self.choose(0),
        }
    }

    /// The oldest request under way after stream `after`, or the oldest at all.
    fn choose(&mut self, after: u32) -> Option<StreamKey> {
        let under_way = self.streams.iter_mut().filter(|(_, stream)| is_under_way(stream));
        // Those that come later in their order come first here, as they are behind `after`.
        let order = |key: StreamKey| (key.id() <= after, key.id());
        let chosen = under_way.map(|(key, _)| key).min_by_key(|key| order(*key));
        self.pressure.first = chosen.map_or(0, StreamKey::id);
        if let Some(key) = chosen {
            self.give_back(key);
        }
        chosen
    }

    /// Announces the window that was held back of a stream.
    fn give_back(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.receiving == Receiving::Body
            && let Some(increment) = stream.receive_window.release(0)
        {
            self.write_control(kind::WINDOW_UPDATE, 0, key.id(), &increment.to_be_bytes());
        }
    }
}

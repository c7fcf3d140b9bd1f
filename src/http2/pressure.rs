//! Which request gets window while memory is short ([`Pressure`](super::flow::Pressure)). One request gets it at a time,
//! the oldest first. So requests that have begun can finish, and the others wait.

use super::connection::Connection;
use super::frame::kind;
use super::key::StreamKey;
use super::stream::{Receiving, Stream};

/// Returns whether a request is under way: some of its window is used up.
fn is_under_way(stream: &Stream) -> bool {
    let window = &stream.receive_window;
    stream.receiving == Receiving::Body && window.available() < window.size()
}

impl Connection {
    /// Sets whether memory is short, so that only one request gets window. The driver calls this in
    /// each of its turns. With `is_far`, so much is held that the next request gets none when that one
    /// has arrived, as long as the peer sends anything. Returns whether it gave window, which is now to
    /// be written.
    #[inline]
    pub(crate) fn set_pressed(&mut self, is_on: bool, is_far: bool) -> bool {
        (is_on || self.pressure.is_on) && self.press(is_on, is_far)
    }

    #[cold]
    fn press(&mut self, is_on: bool, is_far: bool) -> bool {
        let before = self.write_buffer.len();
        self.pressure.is_on = is_on;
        self.pressure.is_far = is_far;
        if is_on {
            self.first_under_pressure();
        } else {
            self.pressure.first = 0;
            // The peers get the window that was held back.
            for key in self.streams.keys() {
                self.give_back(key);
            }
        }
        self.write_buffer.len() > before
    }

    /// Gives window to another request, because the peer does not continue with the one that got
    /// it.
    pub(crate) fn give_to_another(&mut self) {
        if self.pressure.is_on {
            self.choose(self.pressure.first);
        }
    }

    /// Returns whether the peer has to act: it has not sent the rest of a request, or does not take
    /// what is to be sent.
    pub(crate) fn waits_for_peer(&mut self) -> bool {
        let unsent = self.write_buffer.len() > 0 || self.outflow.queued() > 0;
        unsent
            || self.streams.iter_mut().any(|(_, stream)| {
                let may_send = stream.receive_window.available() > 0;
                stream.receiving == Receiving::Body && stream.unread == 0 && may_send
            })
    }

    /// Notes that bytes of a stream's data are no longer kept. Returns the increment of its window
    /// to announce, if it is time to.
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

    /// Does the same for padding, which does not make the window grow.
    pub(super) fn window_after_padding(&mut self, key: StreamKey, bytes: u32) -> Option<u32> {
        if self.pressure.is_on {
            return self.window_under_pressure(key, bytes);
        }
        self.streams.get_mut(key)?.receive_window.release(bytes)
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

    /// Returns the request that gets window. It is the oldest that is under way, until it has
    /// arrived completely.
    fn first_under_pressure(&mut self) -> Option<StreamKey> {
        let is_far = self.pressure.is_far;
        match self.find(self.pressure.first) {
            Some((key, stream)) if stream.receiving == Receiving::Body => Some(key),
            _ if is_far => None,
            _ => self.choose(0),
        }
    }

    /// Chooses the oldest request under way after stream `after`, or the oldest of all.
    fn choose(&mut self, after: u32) -> Option<StreamKey> {
        let under_way = self.streams.iter_mut().filter(|(_, stream)| is_under_way(stream));
        // The requests after `after` come first, then those before it.
        let order = |key: StreamKey| (key.id() <= after, key.id());
        let chosen = under_way.map(|(key, _)| key).min_by_key(|key| order(*key));
        self.pressure.first = chosen.map_or(0, StreamKey::id);
        if let Some(key) = chosen {
            self.give_back(key);
        }
        chosen
    }

    /// Announces the window of a stream that was held back.
    fn give_back(&mut self, key: StreamKey) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.receiving == Receiving::Body
            && let Some(increment) = stream.receive_window.release(0)
        {
            self.write_control(kind::WINDOW_UPDATE, 0, key.id(), &increment.to_be_bytes());
        }
    }
}

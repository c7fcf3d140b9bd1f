//! How a connection receives and sends descriptors (docs/descriptors.md).

use std::time::Duration;

use super::arrived::Reset;
use super::config::KeepAlive;
use super::connection::Connection;
use super::error::{ConnectionError, ErrorCode};
use super::frame::{FrameHeader, HEADER_LEN};
use super::key::StreamKey;
use super::passing::Attached;
use super::role::Role;
use super::stream::Sending;
use crate::descriptors::{AnnouncedSet, Descriptors, ReceivedSet};

/// The keep-alive if none was asked for.
const DEFAULT_KEEP_ALIVE: KeepAlive = KeepAlive {
    interval: Duration::from_secs(60),
    timeout: Duration::from_secs(20),
    when_idle: false,
};

impl Connection {
    // ---- In --------------------------------------------------------------------------------

    /// Takes a set of descriptors that was received with the next bytes, or before them.
    ///
    /// One of the descriptors may be the client's end of this very connection. Then the connection
    /// would stay open after the client has ended. So a client that has sent descriptors has to
    /// answer PINGs while it has calls.
    pub(crate) fn receive_set(&mut self, set: ReceivedSet) {
        if self.dead.is_none() {
            self.passing.sets.push_back(set);
            if self.role == Role::Server {
                self.config.keep_alive.get_or_insert(DEFAULT_KEEP_ALIVE);
            }
        }
    }

    pub(super) fn descriptors_frame(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        let &[count] = payload else {
            return Err(ConnectionError::frame_size("DESCRIPTORS has a length other than 1"));
        };
        if header.stream == 0 {
            return Err(ConnectionError::protocol("DESCRIPTORS on stream 0"));
        }
        if count > self.config.descriptors {
            return Err(ConnectionError::protocol("DESCRIPTORS announces more than may come"));
        }
        let attached = if count == 0 {
            Attached::Void
        } else {
            match self.passing.sets.pop_front() {
                Some(set) if set.fits(usize::from(count)) => Attached::Set(set),
                Some(_) => {
                    return Err(ConnectionError::protocol(
                        "DESCRIPTORS announces another number than came",
                    ));
                }
                None => return Err(ConnectionError::protocol("DESCRIPTORS without descriptors")),
            }
        };
        self.passing.announced = Some((header.stream, attached));
        Ok(())
    }

    /// Takes what came with a response's head.
    pub(crate) fn take_descriptors(&mut self, key: StreamKey) -> Option<Box<ReceivedSet>> {
        self.streams.get_mut(key)?.descriptors.take()
    }

    /// Keeps the descriptors of a head with its stream until they are taken.
    #[inline]
    pub(super) fn attach(&mut self, key: StreamKey, attached: Attached) {
        if let Attached::Set(set) = attached
            && let Some(stream) = self.streams.get_mut(key)
        {
            stream.descriptors = Some(Box::new(set));
        }
    }

    // ---- Out -------------------------------------------------------------------------------

    /// Returns how many descriptors the peer takes with a call.
    pub(crate) fn peer_takes_descriptors(&self) -> u32 {
        if self.config.descriptors > 0 { self.peer.descriptors } else { 0 }
    }

    /// Server: announces `descriptors` for the next response on the stream. They must not be more
    /// than the client takes.
    pub(crate) fn send_descriptors(&mut self, key: StreamKey, descriptors: &Descriptors) {
        let waits = self.streams.get(key).is_some_and(|stream| stream.sending == Sending::Head);
        if waits && self.dead.is_none() {
            self.write_descriptors(key, descriptors);
        }
    }

    /// Server: closes descriptors that wait to be sent on a stream that was reset. Their frame says that
    /// there are none.
    pub(super) fn give_up_descriptors(&mut self, stream: u32) {
        if self.passing.sends() && self.role == Role::Server {
            let of_the_stream =
                self.passing.outgoing.iter().filter(|(_, outgoing)| outgoing.key.id() == stream);
            of_the_stream.for_each(|(_, outgoing)| outgoing.set.close());
        }
    }

    /// Announces `descriptors` for the next head on the stream, if there are any.
    pub(super) fn write_descriptors(&mut self, key: StreamKey, descriptors: &Descriptors) {
        if let Some(set) = AnnouncedSet::new(descriptors) {
            let place = self.write_buffer.end();
            self.passing.announce(key, set, place, self.write_buffer.buffer());
        }
    }

    /// Returns whether a set travels with the next byte.
    pub(crate) fn is_set_next(&self) -> bool {
        self.passing.place() == Some(self.write_buffer.written())
    }

    /// Returns the set that travels with the next byte.
    pub(crate) fn next_set(&self) -> Option<AnnouncedSet> {
        self.passing.outgoing.front().map(|(_, outgoing)| outgoing.set.clone())
    }

    /// Notes that the next set was sent, with its first byte.
    pub(crate) fn set_sent(&mut self) {
        self.passing.outgoing.pop_front();
    }

    /// Gives up the next set, which cannot be sent. Its frame says so, and its stream is reset.
    pub(crate) fn void_set(&mut self, why: &'static str) {
        let Some((_, outgoing)) = self.passing.outgoing.pop_front() else { return };
        if let Some(count) = self.write_buffer.buffer().get_mut(HEADER_LEN) {
            *count = 0;
        }
        let code = ErrorCode::ENHANCE_YOUR_CALM;
        self.abort(outgoing.key, Reset::new(code, why));
    }
}

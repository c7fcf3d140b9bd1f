//! [`Passing`]: descriptors on their way in and out, and which head each set belongs to. The format on
//! the wire is in docs/descriptors.md.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{BufMut, BytesMut};

use super::arrived::Reset;
use super::config::KeepAlive;
use super::connection::Connection;
use super::error::{ConnectionError, ErrorCode};
use super::frame::{FrameHeader, HEADER_LEN, kind};
use super::key::StreamKey;
use super::role::Role;
use super::spare::trim;
use super::stream::Sending;
use crate::descriptors::{Arrived, Descriptors};

/// Where no keep-alive was asked for.
const SIGN_OF_LIFE: KeepAlive = KeepAlive {
    interval: Duration::from_secs(60),
    timeout: Duration::from_secs(20),
    when_idle: false,
};

/// Bytes of a DESCRIPTORS frame.
const FRAME: usize = HEADER_LEN + 1;

#[derive(Debug, Default)]
pub(super) struct Passing {
    /// Sets that were received and that no frame has claimed, oldest first.
    sets: VecDeque<Arrived>,
    /// What the last frame announced. The next frame is the head that it belongs to.
    announced: Option<(u32, Attached)>,
    /// Sets to be sent, each with the place of its frame in all that is ever sent.
    outgoing: VecDeque<(u64, Outgoing)>,
}

/// What comes with a head.
#[derive(Debug, Default)]
pub(super) enum Attached {
    #[default]
    Nothing,
    Set(Arrived),
    /// The peer could not send them: the call is not to begin.
    Void,
}

/// A set that waits to be sent.
#[derive(Clone, Debug)]
struct Outgoing {
    key: StreamKey,
    count: usize,
    descriptors: Descriptors,
}

impl Passing {
    /// Whether `header` may come now.
    #[inline]
    pub(super) fn expects(&self, header: FrameHeader) -> bool {
        match &self.announced {
            None => true,
            Some((stream, _)) => header.kind == kind::HEADERS && header.stream == *stream,
        }
    }

    /// What was announced for the head that has just come.
    #[inline]
    pub(super) fn take_announced(&mut self) -> Attached {
        self.announced.take().map(|(_, attached)| attached).unwrap_or_default()
    }

    /// Whether the sets that no frame has claimed can still be claimed: by the one frame of which
    /// `rest` is the beginning.
    #[inline]
    pub(super) fn is_matched(&self, rest: &[u8]) -> bool {
        match self.sets.len() {
            0 => true,
            1 => !rest.is_empty() && rest.get(3).is_none_or(|kind| *kind == kind::DESCRIPTORS),
            _ => false,
        }
    }

    /// Writes the frame for `descriptors`, which go with its first byte: at `place` in all that is
    /// ever sent.
    fn announce(
        &mut self,
        key: StreamKey,
        descriptors: &Descriptors,
        place: u64,
        out: &mut BytesMut,
    ) {
        let count = descriptors.len();
        let header = FrameHeader { len: 1, kind: kind::DESCRIPTORS, flags: 0, stream: key.id() };
        out.put_slice(&header.bytes());
        out.put_u8(count as u8);
        self.outgoing.push_back((place, Outgoing { key, count, descriptors: descriptors.clone() }));
    }

    /// Whether sets wait to be sent.
    #[inline]
    pub(super) fn sends(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// The place of the next set's frame in all that is ever sent.
    fn place(&self) -> Option<u64> {
        self.outgoing.front().map(|(place, _)| *place)
    }

    /// How many bytes may be written at once after `written`: up to the next set's frame, or that
    /// frame alone.
    pub(super) fn limit(&self, written: u64) -> usize {
        match self.place() {
            None => usize::MAX,
            Some(place) if place == written => FRAME,
            Some(place) => (place - written) as usize,
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn trim(&mut self) {
        trim(&mut self.sets);
        trim(&mut self.outgoing);
    }
}

/// A set that is next to be written.
#[derive(Debug)]
pub(crate) struct NextSet {
    pub(crate) descriptors: Descriptors,
    pub(crate) count: usize,
}

impl Connection {
    // ---- In --------------------------------------------------------------------------------

    /// A set of descriptors was received, with or before the bytes that come next.
    ///
    /// A server's call may hold the client's end of its own connection, which then is never closed. So
    /// a client that has sent some has to answer while it has calls.
    pub(crate) fn receive_set(&mut self, set: Arrived) {
        if self.dead.is_none() {
            self.passing.sets.push_back(set);
            if self.role == Role::Server {
                self.config.keep_alive.get_or_insert(SIGN_OF_LIFE);
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
    pub(crate) fn take_descriptors(&mut self, key: StreamKey) -> Option<Box<Arrived>> {
        self.streams.get_mut(key)?.descriptors.take()
    }

    /// What came with a head stays with its stream until it is taken.
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

    /// Server: announces `descriptors` for the response that is sent next on the stream. They are no
    /// more than the client takes.
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
                self.passing.outgoing.iter().filter(|(_, set)| set.key.id() == stream);
            of_the_stream.for_each(|(_, set)| set.descriptors.close());
        }
    }

    /// Announces `descriptors` for the head that is written next on the stream.
    pub(super) fn write_descriptors(&mut self, key: StreamKey, descriptors: &Descriptors) {
        let place = self.write_buffer.end();
        self.passing.announce(key, descriptors, place, self.write_buffer.buffer());
    }

    /// Whether a set goes with the next byte.
    pub(crate) fn is_set_next(&self) -> bool {
        self.passing.place() == Some(self.write_buffer.written())
    }

    /// The set that goes with the next byte.
    pub(crate) fn next_set(&self) -> Option<NextSet> {
        let (_, set) = self.passing.outgoing.front()?;
        Some(NextSet { descriptors: set.descriptors.clone(), count: set.count })
    }

    /// The next set was sent with its first byte.
    pub(crate) fn set_sent(&mut self) {
        self.passing.outgoing.pop_front();
    }

    /// The next set cannot be sent: its frame says so, and its stream is reset.
    pub(crate) fn void_set(&mut self, why: &'static str) {
        let Some((_, set)) = self.passing.outgoing.pop_front() else { return };
        if let Some(count) = self.write_buffer.buffer().get_mut(HEADER_LEN) {
            *count = 0;
        }
        let code = ErrorCode::ENHANCE_YOUR_CALM;
        self.abort(
            set.key,
            Reset { code, by_peer: false, never_processed: false, why, limit: None },
        );
    }
}

//! What happens at a certain time: the end of a handshake or a frame that does not complete, of a
//! peer that does not read, of a peer that may be dead, and of a connection that is not used. The
//! driver passes the time in.

use std::time::{Duration, Instant};

use super::connection::Connection;
use super::draining::{Draining, Notice};
use super::error::{ConnectionError, ErrorCode};
use super::frame::kind;
use super::handshake::Awaited;
use super::role::Role;

/// The PING that checks whether a silent peer is alive.
pub(super) const KEEP_ALIVE_PING: [u8; 8] = *b"alive?..";

/// How long the last bytes of a connection may take. There is no call whose deadline would end that wait.
const LAST_BYTES: Duration = Duration::from_secs(30);

impl Connection {
    /// Notes since when something waits, if that is new at `now`. The driver calls this at the end
    /// of each turn, before it asks for the [next timeout](Self::next_timeout).
    #[inline]
    pub(crate) fn note_time(&mut self, now: Instant) {
        // Data that a client holds back for a server's windows does not count.
        let hoarded = self.role == Role::Server && self.outflow.queued() > self.config.max_stalled;
        let waits = self.write_buffer.len() > 0 || hoarded;
        self.timers.note_stall(now, waits, self.write_buffer.written());
        let is_idle = self.active_streams() == 0;
        let is_announced = self.draining == Draining::Announced;
        self.timers.note_draining(
            now,
            is_announced,
            is_idle && self.server.notice == Notice::Short,
        );
        if self.config.idle_timeout.is_some() {
            // A call that waits for a slot is a call, too.
            let idle = is_idle && !self.client.wants_slot && self.draining == Draining::No;
            let last = match self.role {
                Role::Client => self.client.next_id - 1,
                Role::Server => self.server.last_accepted,
            };
            self.timers.note_idle(now, idle, last);
        }
    }

    /// Notes that the driver does not read although the peer has sent something. No time passes for
    /// the peer meanwhile.
    #[cold]
    pub(crate) fn stand_still(&mut self, now: Instant) {
        let time = self.timers.stand_still(now);
        self.pass_over(time);
    }

    /// Moves every deadline of the peer: so much time was not its delay.
    #[cold]
    pub(crate) fn pass_over(&mut self, time: Duration) {
        self.timers.pass_over(time);
        if let Some(block) = &mut self.block {
            block.since += time;
        }
    }

    /// Notes that the driver reads again. It is the reverse of [`stand_still`](Self::stand_still).
    #[inline]
    pub(crate) fn go_on(&mut self) {
        self.timers.go_on();
    }

    /// Returns when to call [`on_timeout`](Self::on_timeout) if nothing happens before.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let (timers, config) = (&self.timers, &self.config);
        let mut next = self.stall_deadline();
        if self.dead.is_some() {
            return next;
        }
        let mut note = |at: Option<Instant>| {
            // Usually there is none.
            if let Some(at) = at {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        };
        note((!self.handshake.is_complete()).then(|| timers.handshake_deadline(config)));
        note(timers.frame_deadline(config));
        note(self.block_deadline());
        note(timers.draining_deadline());
        note(self.keep_alive_deadline());
        note(timers.idle_deadline(config));
        next
    }

    /// Returns when the header block that has begun has to be complete.
    fn block_deadline(&self) -> Option<Instant> {
        self.block.as_ref().map(|block| block.since + self.config.frame_timeout)
    }

    /// Returns whether a connection without calls is ended after some time.
    pub(crate) fn has_idle_timeout(&self) -> bool {
        self.config.idle_timeout.is_some()
    }

    fn keep_alive_deadline(&self) -> Option<Instant> {
        self.timers.keep_alive_deadline(self.config.keep_alive?, self.open_streams() > 0)
    }

    /// Returns when some of the waiting bytes have to be sent.
    fn stall_deadline(&self) -> Option<Instant> {
        let is_over = self.draining == Draining::Final && self.active_streams() == 0;
        let limit = match self.dead.is_some() || is_over {
            true => self.config.send_timeout.min(LAST_BYTES),
            false => self.config.send_timeout,
        };
        self.timers.stall_deadline(limit)
    }

    /// Does what is due at `now`. It may write frames, and may end the connection.
    pub(crate) fn on_timeout(&mut self, now: Instant) -> Result<(), ConnectionError> {
        self.note_time(now);
        if let Some(error) = self.late(now) {
            return Err(self.fail(error));
        }
        if is_due(self.timers.draining_deadline(), now) {
            self.name_last_stream();
        }
        if is_due(self.timers.idle_deadline(&self.config), now) {
            self.go_away(Notice::Long);
        }
        if is_due(self.keep_alive_deadline(), now) {
            self.timers.probe(now);
            self.write_control(kind::PING, 0, 0, &KEEP_ALIVE_PING);
        }
        Ok(())
    }

    /// Returns why the connection has to end at `now`, if the peer is too late with something.
    pub(crate) fn late(&self, now: Instant) -> Option<ConnectionError> {
        let (timers, config) = (&self.timers, &self.config);
        let slow = ErrorCode::ENHANCE_YOUR_CALM;
        if is_due(self.stall_deadline(), now) {
            return Some(ConnectionError::timeout(
                slow,
                "the peer does not read what is sent to it",
            ));
        }
        if self.dead.is_some() {
            return self.dead;
        }
        if !self.handshake.is_complete() && timers.handshake_deadline(config) <= now {
            return Some(ConnectionError::timeout(
                ErrorCode::SETTINGS_TIMEOUT,
                match (self.handshake.awaits(), self.role) {
                    (Awaited::Nothing, _) => "SETTINGS not acknowledged in time",
                    (_, Role::Server) => "no preface and SETTINGS in time",
                    (_, Role::Client) => "no SETTINGS in time",
                },
            ));
        }
        if is_due(timers.frame_deadline(config), now) || is_due(self.block_deadline(), now) {
            let why = "a frame or header block did not end in time";
            return Some(ConnectionError::timeout(slow, why));
        }
        if timers.is_probing() && is_due(self.keep_alive_deadline(), now) {
            let why = "the peer does not answer PING";
            return Some(ConnectionError::timeout(ErrorCode::NO_ERROR, why));
        }
        None
    }
}

fn is_due(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| at <= now)
}

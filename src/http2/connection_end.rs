//! How a connection ends: with a GOAWAY and time for calls in flight, at once, or together with the
//! socket.

use super::connection::Connection;
use super::draining::{Draining, Notice};
use super::error::{Cause, ConnectionError, ErrorCode};
use super::flow::MAX_WINDOW;
use super::frame::kind;
use super::role::Role;
use super::stream::Receiving;

/// The PING that asks whether the peer has seen the first GOAWAY of a graceful end.
pub(super) const SHUTDOWN_PING: [u8; 8] = *b"goodbye.";

impl Connection {
    /// Lets calls in flight finish, and takes no more. [`is_done`](Self::is_done) tells when that
    /// is complete.
    ///
    /// A server first announces the end without naming a last stream. It names the last stream when
    /// the peer has answered a PING, so that no request under way is lost (RFC 9113 §6.8).
    pub(crate) fn go_away(&mut self, notice: Notice) {
        self.server.notice = notice;
        if self.dead.is_some() || self.draining != Draining::No {
            return;
        }
        match self.role {
            Role::Client => {
                self.draining = Draining::Final;
                self.write_go_away(0, ErrorCode::NO_ERROR, "");
            }
            Role::Server => {
                self.draining = Draining::Announced;
                self.write_go_away(MAX_WINDOW, ErrorCode::NO_ERROR, "");
                if self.handshake.is_introduced() {
                    self.write_control(kind::PING, 0, 0, &SHUTDOWN_PING);
                } else {
                    // A peer that has not sent its SETTINGS can have nothing under way.
                    self.name_last_stream();
                }
            }
        }
    }

    /// Sends the second GOAWAY, which names the last stream.
    pub(super) fn name_last_stream(&mut self) {
        if self.draining == Draining::Announced {
            self.draining = Draining::Final;
            self.write_go_away(self.server.last_accepted, ErrorCode::NO_ERROR, "");
        }
    }

    /// Ends the connection now. Only the bytes of [`outgoing`](Self::outgoing) are still to be
    /// written.
    pub(crate) fn close(&mut self, code: ErrorCode, why: &'static str) {
        self.fail(ConnectionError { code, cause: Cause::Local, why });
    }

    /// Returns whether the connection is complete: no more streams will come, none is open, and
    /// everything is written.
    pub(crate) fn is_done(&self) -> bool {
        let ends =
            self.dead.is_some() || !self.draining.takes_streams() || self.peer_goes_away.is_some();
        ends && (self.dead.is_some() || self.active_streams() == 0) && self.write_buffer.len() == 0
    }

    /// Returns whether this end has announced that it takes no more streams.
    pub(crate) fn has_announced_end(&self) -> bool {
        matches!(self.draining, Draining::Announced | Draining::Final)
    }

    /// Returns why the connection ended, if it did.
    pub(crate) fn failure(&self) -> Option<ConnectionError> {
        self.dead
    }

    pub(super) fn fail(&mut self, error: ConnectionError) -> ConnectionError {
        if let Some(earlier) = self.dead {
            return earlier;
        }
        let last = match self.role {
            Role::Client => {
                self.drop_unwritten_requests();
                0
            }
            Role::Server => self.server.last_accepted,
        };
        self.write_go_away(last, error.code, error.why);
        self.dead = Some(error);
        self.end_streams();
        error
    }

    /// Client: drops what waits to be written from the first request on of which nothing was written. Such
    /// requests count as not processed, and are sent again on another connection. So this one, which still
    /// writes its GOAWAY, must not write them.
    fn drop_unwritten_requests(&mut self) {
        let handed_over = self.write_buffer.handed_over();
        let beginnings = self.streams.iter_mut().map(|(_, stream)| stream.first_byte);
        if let Some(first) = beginnings.filter(|first| *first >= handed_over).min() {
            self.write_buffer.truncate(first);
            self.passing.drop_behind(first);
        }
    }

    /// Ends the connection without a GOAWAY: the socket has failed, or the peer has closed it. What
    /// has arrived can still be read.
    pub(crate) fn disconnect(&mut self) {
        if self.dead.is_none() {
            let why = "the connection has ended";
            self.dead =
                Some(ConnectionError { code: ErrorCode::NO_ERROR, cause: Cause::Local, why });
            self.end_streams();
            self.write_buffer.clear();
            self.passing.clear();
        }
    }

    /// Notes that the peer sends nothing more but still reads. Complete requests are answered,
    /// others are not.
    pub(crate) fn end_of_input(&mut self) {
        self.draining = match self.has_announced_end() {
            true => Draining::Final,
            false => Draining::Unneeded,
        };
        // Neither SETTINGS nor their acknowledgement can come, so none is waited for.
        self.handshake.settings_came();
        self.handshake.acknowledged();
        self.block = None;
        self.timers.input_ended();
        self.config.keep_alive = None;
        for key in self.streams.keys() {
            if self.streams.get(key).is_some_and(|stream| stream.receiving != Receiving::Done) {
                self.end_stream(key);
            }
        }
    }

    /// Ends all streams, because the connection has ended.
    fn end_streams(&mut self) {
        self.outflow.clear_ready();
        self.block = None;
        self.client.wants_slot = false;
        self.open_whole_requests();
        for key in self.streams.keys() {
            self.end_stream(key);
        }
    }

    fn write_go_away(&mut self, last: u32, code: ErrorCode, debug: &str) {
        let mut payload = Vec::with_capacity(8 + debug.len());
        payload.extend_from_slice(&last.to_be_bytes());
        payload.extend_from_slice(&code.0.to_be_bytes());
        payload.extend_from_slice(debug.as_bytes());
        self.write_control(kind::GOAWAY, 0, 0, &payload);
    }
}

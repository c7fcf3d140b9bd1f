//! Frames that carry no message: SETTINGS, PING, GOAWAY, PRIORITY and WINDOW_UPDATE (RFC 9113 §6).

use bytes::Bytes;

use super::arrived::Reset;
use super::budget::{self, Cost};
use super::connection::Connection;
use super::connection_end::SHUTDOWN_PING;
use super::draining::Draining;
use super::error::{ConnectionError, ErrorCode};
use super::event::GoAway;
use super::flow::{DEFAULT_WINDOW, ReceiveWindow, SendWindow};
use super::frame::{FrameHeader, flag, kind, u31};
use super::role::Role;
use super::stream::{Receiving, Sending, Stream};
use super::time::KEEP_ALIVE_PING;

/// How many bytes of a GOAWAY's debug data are kept.
const MAX_DEBUG: usize = 256;

impl Connection {
    // ---- SETTINGS (§6.5) -------------------------------------------------------------------

    pub(super) fn settings(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        if header.stream != 0 {
            return Err(ConnectionError::protocol("SETTINGS on a stream"));
        }
        if header.has(flag::ACK) {
            if !payload.is_empty() {
                return Err(ConnectionError::frame_size("an acknowledgement with settings"));
            }
            return self.settings_acknowledged();
        }
        let first = !self.handshake.is_introduced();
        if first {
            // A peer that names no limit means that there is none (§6.5.2).
            self.peer.max_concurrent_streams = u32::MAX;
        } else {
            self.budget.spend(Cost::Settings)?;
        }
        let window = self.peer.initial_window_size;
        if let Some(table) = self.peer.apply(payload, self.role)? {
            self.encoder.set_peer_max_table_size(table.smallest as usize);
            self.encoder.set_peer_max_table_size(table.last as usize);
        }
        let difference = i64::from(self.peer.initial_window_size) - i64::from(window);
        if difference != 0 {
            self.move_send_windows(difference)?;
        }
        self.write_control(kind::SETTINGS, flag::ACK, 0, &[]);
        if first {
            self.handshake.settings_came();
            self.events.ready();
        }
        self.offer_slots();
        self.check_control()
    }

    /// Applies our settings, which hold from now on (§6.5.3).
    fn settings_acknowledged(&mut self) -> Result<(), ConnectionError> {
        if self.handshake.is_acknowledged() {
            return self.budget.spend(Cost::Idle);
        }
        let before = self.initial_receive_window();
        self.handshake.acknowledged();
        let difference = i64::from(self.initial_receive_window()) - i64::from(before);
        if difference != 0 {
            for key in self.streams.keys() {
                let Some(stream) = self.streams.get_mut(key) else { continue };
                stream.receive_window.adjust(difference);
                // What was read before may be more than the window that the peer has now.
                if stream.receiving != Receiving::Done
                    && let Some(increment) = stream.receive_window.release(0)
                {
                    let increment = increment.to_be_bytes();
                    self.write_control(kind::WINDOW_UPDATE, 0, key.id(), &increment);
                }
            }
        }
        Ok(())
    }

    /// Returns a stream with the windows that both ends' SETTINGS give it.
    pub(super) fn new_stream(&self, id: u32) -> Stream {
        Stream::new(
            id,
            SendWindow::new(self.peer.initial_window_size),
            ReceiveWindow::new(self.initial_receive_window()),
        )
    }

    /// Returns a new stream's window for the peer. Before the peer has acknowledged our SETTINGS it may
    /// use the old value or the new one (§6.5.3), so the larger one counts.
    pub(super) fn initial_receive_window(&self) -> u32 {
        if self.handshake.is_acknowledged() {
            self.config.stream_window
        } else {
            self.config.stream_window.max(DEFAULT_WINDOW)
        }
    }

    /// Changes every stream's window after a change of SETTINGS_INITIAL_WINDOW_SIZE. A window may
    /// then be below zero (§6.9.2).
    fn move_send_windows(&mut self, by: i64) -> Result<(), ConnectionError> {
        let mut ready = Vec::new();
        for (key, stream) in self.streams.iter_mut() {
            if stream.sending == Sending::Done {
                continue;
            }
            if stream.send_window.adjust(by).is_err() {
                return Err(ConnectionError::peer(
                    ErrorCode::FLOW_CONTROL_ERROR,
                    "SETTINGS_INITIAL_WINDOW_SIZE makes a window overflow",
                ));
            }
            if by > 0 && stream.has_queued() && !stream.ready && stream.send_window.available() > 0
            {
                stream.ready = true;
                ready.push(key);
            }
        }
        for key in ready {
            self.outflow.push_ready(key, &self.streams);
        }
        Ok(())
    }

    /// Returns whether a stream that the peer has reset is idle, and the peer is known for that: older
    /// versions of gRPC's C core, such as 1.51 and 1.62, reset the stream of a call that was given up
    /// before its HEADERS were written. Others break the rules with it (§6.4).
    pub(super) fn was_never_begun(&self, id: u32) -> bool {
        self.peer.is_grpc_core
            && self.role == Role::Server
            && id % 2 == 1
            && id > self.server.last_id
    }

    // ---- PING (§6.7), GOAWAY (§6.8), PRIORITY (§6.3) ---------------------------------------

    pub(super) fn ping_frame(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        let Ok(bytes) = <[u8; 8]>::try_from(payload) else {
            return Err(ConnectionError::frame_size("PING is not of eight bytes"));
        };
        if header.stream != 0 {
            return Err(ConnectionError::protocol("PING on a stream"));
        }
        if !header.has(flag::ACK) {
            self.budget.spend(Cost::Idle)?;
            self.write_control(kind::PING, flag::ACK, 0, &bytes);
            return self.check_control();
        }
        // Only the answer to a PING that was sent is free.
        match bytes {
            SHUTDOWN_PING if self.draining == Draining::Announced => self.name_last_stream(),
            KEEP_ALIVE_PING if self.timers.is_probing() => self.timers.probe_answered(),
            _ => self.budget.spend(Cost::Idle)?,
        }
        Ok(())
    }

    pub(super) fn go_away_frame(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        if header.stream != 0 {
            return Err(ConnectionError::protocol("GOAWAY on a stream"));
        }
        let Some((last, rest)) = payload.split_first_chunk::<4>() else {
            return Err(ConnectionError::frame_size("GOAWAY is too short"));
        };
        let Some((code, debug)) = rest.split_first_chunk::<4>() else {
            return Err(ConnectionError::frame_size("GOAWAY is too short"));
        };
        self.budget.spend(Cost::Idle)?;
        let last_stream = u31(*last);
        let code = ErrorCode(u32::from_be_bytes(*code));
        let debug = Bytes::copy_from_slice(&debug[..debug.len().min(MAX_DEBUG)]);
        // If there are several, none may name a later stream than the one before (§6.8).
        let earlier = self.peer_goes_away.as_ref().map(|go_away| go_away.last_stream);
        let last_stream = earlier.map_or(last_stream, |earlier| earlier.min(last_stream));
        self.peer_goes_away = Some(GoAway { last_stream, code, debug });
        self.events.go_away();
        if self.role == Role::Client && earlier != Some(last_stream) {
            self.refused_after(last_stream);
        }
        Ok(())
    }

    /// Resets the streams above `last`, which the server has not processed and never will.
    fn refused_after(&mut self, last: u32) {
        for key in self.streams.keys() {
            let Some(stream) = self.streams.get_mut(key) else { continue };
            if key.id() <= last || stream.is_closed() {
                continue;
            }
            stream.reset_by_peer = true;
            stream.peer_ended = true;
            self.close_stream(key);
            let reset = Reset {
                never_processed: true,
                ..Reset::new(
                    ErrorCode::REFUSED_STREAM,
                    "the server went away before it took the request",
                )
            };
            self.tell_reset(key, reset);
            self.settle(key);
        }
    }

    /// Priorities are deprecated (§5.3.2). They are checked and ignored.
    pub(super) fn priority(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        if header.stream == 0 {
            return Err(ConnectionError::protocol("PRIORITY on stream 0"));
        }
        self.budget.spend(Cost::Idle)?;
        let why = match payload.first_chunk::<4>() {
            Some(dependency) if payload.len() == 5 => {
                if u31(*dependency) != header.stream {
                    return Ok(());
                }
                (ErrorCode::PROTOCOL_ERROR, "a stream depends on itself")
            }
            _ => (ErrorCode::FRAME_SIZE_ERROR, "PRIORITY is not of five bytes"),
        };
        self.error_on(header.stream, why.0, why.1)
    }

    /// Deals with a stream error on a stream that may have ended or be idle. If it has ended, no
    /// one has to be told. If it is idle, it cannot be reset (§5.1), so the error is the
    /// connection's.
    fn error_on(
        &mut self,
        id: u32,
        code: ErrorCode,
        why: &'static str,
    ) -> Result<(), ConnectionError> {
        if let Some((key, stream)) = self.find(id) {
            if stream.is_closed() {
                return self.budget.spend(Cost::Violation);
            }
            return self.stream_error(key, code, why);
        }
        self.closed_stream(id, why).map_err(|error| ConnectionError { code, ..error })?;
        self.budget.spend(Cost::Violation)
    }

    // ---- WINDOW_UPDATE (§6.9) --------------------------------------------------------------

    pub(super) fn window_update(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
    ) -> Result<(), ConnectionError> {
        let Ok(bytes) = <[u8; 4]>::try_from(payload) else {
            return Err(ConnectionError::frame_size("WINDOW_UPDATE is not of four bytes"));
        };
        let increment = u31(bytes);
        if increment < budget::TINY_WINDOW_UPDATE {
            self.budget.spend(Cost::Idle)?;
        }
        if header.stream == 0 {
            if increment == 0 {
                return Err(ConnectionError::protocol("WINDOW_UPDATE by 0"));
            }
            return self.outflow.widen(increment).map_err(|_| {
                ConnectionError::peer(
                    ErrorCode::FLOW_CONTROL_ERROR,
                    "the connection's window is beyond 2^31-1",
                )
            });
        }
        let Some((key, stream)) = self.find(header.stream) else {
            self.closed_stream(header.stream, "WINDOW_UPDATE on an idle stream")?;
            // The frame was sent before the peer knew (§5.1).
            return self.budget.spend(Cost::Idle);
        };
        if stream.is_closed() {
            return self.budget.spend(Cost::Idle);
        }
        if increment == 0 {
            return self.stream_error(key, ErrorCode::PROTOCOL_ERROR, "WINDOW_UPDATE by 0");
        }
        if stream.send_window.adjust(i64::from(increment)).is_err() {
            let why = "the stream's window is beyond 2^31-1";
            return self.stream_error(key, ErrorCode::FLOW_CONTROL_ERROR, why);
        }
        if stream.has_queued() && !stream.ready && stream.send_window.available() > 0 {
            stream.ready = true;
            self.outflow.push_ready(key, &self.streams);
        }
        Ok(())
    }
}

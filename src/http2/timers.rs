//! [`Timers`]: the moments since when the connection waits for things.

use std::time::{Duration, Instant};

use super::config::{Config, KeepAlive};
use super::draining::Notice;
use crate::far;

/// How long a connection has at least for its first call: the call that opened it waits for it.
const FIRST_CALL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Timers {
    /// When the connection began.
    start: Instant,
    /// When bytes last arrived.
    heard: Instant,
    /// When the frame began that is not complete.
    unfinished: Option<Instant>,
    /// Since when something waits to be sent, and how much was written by then.
    stalled: Option<(Instant, u64)>,
    /// When the keep-alive PING was sent that is not answered.
    probing: Option<Instant>,
    /// Since when there is no call, and the stream of the last one by then, or 0.
    idle: Option<(Instant, u32)>,
    /// When the announced end of the connection becomes final, even if the peer has not answered.
    draining: Option<Instant>,
    /// When `stand_still` was called last, while the driver does not read.
    unread: Option<Box<Instant>>,
}

impl Timers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            start: now,
            heard: now,
            unfinished: None,
            stalled: None,
            probing: None,
            idle: None,
            draining: None,
            unread: None,
        }
    }

    /// Notes that the peer's bytes were left unread until `now`. That time is not the peer's delay,
    /// so every deadline has to move by it. Returns how long it was since the last call.
    pub(super) fn stand_still(&mut self, now: Instant) -> Duration {
        let since = self.unread.replace(Box::new(now)).map_or(now, |since| *since);
        now.saturating_duration_since(since)
    }

    /// Moves every deadline by so much.
    pub(super) fn pass_over(&mut self, time: Duration) {
        self.start += time;
        self.heard += time;
        let optional = [&mut self.unfinished, &mut self.probing, &mut self.draining];
        for instant in optional.into_iter().flatten() {
            *instant += time;
        }
        if let Some((since, _)) = &mut self.stalled {
            *since += time;
        }
    }

    /// Notes that the peer's bytes are read again.
    #[inline]
    pub(super) fn go_on(&mut self) {
        self.unread = None;
    }

    /// Notes after a turn of receiving whether a frame ended in it, and whether one is unfinished.
    #[inline]
    pub(super) fn received(&mut self, now: Instant, progress: bool, unfinished: bool) {
        self.heard = now;
        self.probing = None;
        if !unfinished {
            self.unfinished = None;
        } else if progress || self.unfinished.is_none() {
            self.unfinished = Some(now);
        }
    }

    /// Notes that nothing comes any more: no frame is unfinished, and no PING is answered.
    pub(super) fn input_ended(&mut self) {
        self.unfinished = None;
        self.probing = None;
    }

    /// Notes that a keep-alive PING was sent.
    pub(super) fn probe(&mut self, now: Instant) {
        self.probing = Some(now);
    }

    pub(super) fn probe_answered(&mut self) {
        self.probing = None;
    }

    pub(super) fn is_probing(&self) -> bool {
        self.probing.is_some()
    }

    /// Notes whether something waits to be sent when `written` bytes were written. The time starts
    /// again whenever a byte is written.
    #[inline]
    pub(super) fn note_stall(&mut self, now: Instant, waits: bool, written: u64) {
        if !waits {
            self.stalled = None;
        } else if self.stalled.is_none_or(|(_, then)| then != written) {
            self.stalled = Some((now, written));
        }
    }

    /// Notes whether there is no call. `last` is 0 before the first call, and then another number after
    /// each.
    pub(super) fn note_idle(&mut self, now: Instant, idle: bool, last: u32) {
        if !idle {
            self.idle = None;
        } else if self.idle.is_none_or(|(_, then)| then != last) {
            self.idle = Some((now, last));
        }
    }

    /// Notes whether the connection's end is announced but not final, and whether it is soon.
    pub(super) fn note_draining(&mut self, now: Instant, draining: bool, soon: bool) {
        if !draining {
            self.draining = None;
            return;
        }
        let at = now + if soon { Notice::SHORT } else { Notice::LONG };
        self.draining = Some(self.draining.map_or(at, |earlier| earlier.min(at)));
    }

    /// Returns when the handshake has to be complete.
    pub(super) fn handshake_deadline(&self, config: &Config) -> Instant {
        far::after(self.start, config.handshake_timeout)
    }

    /// Returns when the frame that has begun has to be complete.
    pub(super) fn frame_deadline(&self, config: &Config) -> Option<Instant> {
        self.unfinished.map(|since| since + config.frame_timeout)
    }

    /// Returns when some of the waiting bytes have to be sent, if that may take so long.
    pub(super) fn stall_deadline(&self, limit: Duration) -> Option<Instant> {
        self.stalled.map(|(since, _)| since + limit)
    }

    /// Returns when the end of the connection becomes final, even if the peer has not answered.
    pub(super) fn draining_deadline(&self) -> Option<Instant> {
        self.draining
    }

    /// Returns when a connection without calls ends.
    pub(super) fn idle_deadline(&self, config: &Config) -> Option<Instant> {
        let (since, last) = self.idle?;
        let least = if last == 0 { FIRST_CALL } else { Duration::ZERO };
        since.checked_add(config.idle_timeout?.max(least))
    }

    /// Returns when to send a PING, or to give up waiting for its answer.
    pub(super) fn keep_alive_deadline(
        &self,
        keep_alive: KeepAlive,
        calls: bool,
    ) -> Option<Instant> {
        if let Some(since) = self.probing {
            return since.checked_add(keep_alive.timeout);
        }
        if !calls && !keep_alive.when_idle {
            return None;
        }
        self.heard.checked_add(keep_alive.interval)
    }
}

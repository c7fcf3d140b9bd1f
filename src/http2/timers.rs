//! [`Timers`]: since when what is waited for.

use std::time::{Duration, Instant};

use super::config::{Config, KeepAlive};

/// How long a peer may take to answer the PING that says that it knows of the connection's end.
const LAST_STREAM_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Timers {
    /// When the connection began.
    start: Instant,
    /// When bytes last arrived.
    heard: Instant,
    /// When the frame began that has not arrived in full.
    unfinished: Option<Instant>,
    /// Since when something waits to be sent, and what had been written by then.
    stalled: Option<(Instant, u64)>,
    /// A keep-alive PING is out since then.
    probing: Option<Instant>,
    /// Since when there is no call, and the last one's stream by then.
    idle: Option<(Instant, u32)>,
    /// Since when the end of the connection is announced and not final.
    draining: Option<Instant>,
    /// Until when what the peer sent was left unread, if it is.
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

    /// The peer has sent something, which was not read in all the time until `now`. That time is no delay
    /// of the peer's: nothing is due earlier for it. Returns how much time it was since the last call.
    pub(super) fn stand_still(&mut self, now: Instant) -> Duration {
        let since = self.unread.replace(Box::new(now)).map_or(now, |since| *since);
        let time = now.saturating_duration_since(since);
        self.start += time;
        self.heard += time;
        let optional = [&mut self.unfinished, &mut self.probing, &mut self.draining];
        for instant in optional.into_iter().flatten() {
            *instant += time;
        }
        if let Some((since, _)) = &mut self.stalled {
            *since += time;
        }
        time
    }

    /// What the peer sends is read again.
    #[inline]
    pub(super) fn go_on(&mut self) {
        self.unread = None;
    }

    /// After a turn of receiving: whether a frame ended in it, and whether one is left unfinished.
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

    /// Nothing comes any more: no frame is unfinished, and no PING is answered.
    pub(super) fn input_ended(&mut self) {
        self.unfinished = None;
        self.probing = None;
    }

    /// A keep-alive PING was sent.
    pub(super) fn probe(&mut self, now: Instant) {
        self.probing = Some(now);
    }

    pub(super) fn is_probing(&self) -> bool {
        self.probing.is_some()
    }

    /// Whether something waits to be sent, when `written` bytes have been written. Its time begins
    /// anew with each byte that is.
    #[inline]
    pub(super) fn note_stall(&mut self, now: Instant, waits: bool, written: u64) {
        if !waits {
            self.stalled = None;
        } else if self.stalled.is_none_or(|(_, then)| then != written) {
            self.stalled = Some((now, written));
        }
    }

    /// Whether there is no call, when `last` was the last one's stream.
    pub(super) fn note_idle(&mut self, now: Instant, idle: bool, last: u32) {
        if !idle {
            self.idle = None;
        } else if self.idle.is_none_or(|(_, then)| then != last) {
            self.idle = Some((now, last));
        }
    }

    /// Whether the connection's end is announced and not final.
    pub(super) fn note_draining(&mut self, now: Instant, draining: bool) {
        if !draining {
            self.draining = None;
        } else if self.draining.is_none() {
            self.draining = Some(now);
        }
    }

    /// When the handshake has to be complete.
    pub(super) fn handshake_deadline(&self, config: &Config) -> Instant {
        self.start + config.handshake_timeout
    }

    /// When the frame that has begun has to be complete.
    pub(super) fn frame_deadline(&self, config: &Config) -> Option<Instant> {
        self.unfinished.map(|since| since + config.frame_timeout)
    }

    /// When some of what waits to be sent has to have gone.
    pub(super) fn stall_deadline(&self, config: &Config) -> Option<Instant> {
        self.stalled.map(|(since, _)| since + config.send_timeout)
    }

    /// When the end of the connection becomes final, whether the peer has answered or not.
    pub(super) fn draining_deadline(&self) -> Option<Instant> {
        self.draining.map(|since| since + LAST_STREAM_TIMEOUT)
    }

    /// When a connection without calls ends.
    pub(super) fn idle_deadline(&self, config: &Config) -> Option<Instant> {
        let (since, _) = self.idle?;
        since.checked_add(config.idle_timeout?)
    }

    /// When to send a PING, or to give up waiting for the answer to one.
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

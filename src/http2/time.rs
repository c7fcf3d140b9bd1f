//! Deadlines: the handshake, a frame that does not come to its end, a peer that does not read, one
//! that may be dead, and the bound on a graceful end. The driver brings the time.

use std::time::{Duration, Instant};

use super::connection::{Connection, Hello, KEEP_ALIVE_PING, Leaving};
use super::error::{ErrorCode, Fatal};
use super::frame::kind;
use super::stream::Role;

/// How long a peer may take to answer the PING that says that it knows of the connection's end.
const LAST_STREAM_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Timers {
    /// When the connection began.
    start: Instant,
    /// When octets last arrived.
    heard: Instant,
    /// When the frame began that has not arrived in full.
    unfinished: Option<Instant>,
    /// What had been written at a time when something waited to be.
    stalled: Option<(Instant, u64)>,
    /// A keep-alive PING is out since then.
    probing: Option<Instant>,
    /// Since when there is no call, and the last one's stream by then.
    idle: Option<(Instant, u32)>,
    /// When the end of the connection was first seen to be announced.
    leaving_since: Option<Instant>,
    pub(super) leaving: Leaving,
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
            leaving_since: None,
            leaving: Leaving::No,
        }
    }

    /// After a pass of receiving: whether a frame ended in it, and whether one is left unfinished.
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
}

impl Connection {
    /// When [`on_deadline`](Self::on_deadline) is to be called, if nothing happens before. Ask
    /// before every sleep: it also notes since when data waits.
    pub(crate) fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        if self.dead.is_some() {
            return self.send_deadline(now);
        }
        let handshake =
            (!self.is_shaken()).then(|| self.timers.start + self.config.handshake_timeout);
        let frame = self.timers.unfinished.map(|since| since + self.config.frame_timeout);
        let block = self.block.as_ref().map(|block| block.since + self.config.frame_timeout);
        let leaving = (self.timers.leaving == Leaving::Announced)
            .then(|| *self.timers.leaving_since.get_or_insert(now) + LAST_STREAM_TIMEOUT);
        let sending = self.send_deadline(now);
        let alive = self.keep_alive_deadline();
        let idle = self.idle_deadline(now);
        [handshake, frame, block, leaving, sending, alive, idle].into_iter().flatten().min()
    }

    /// Both sides' SETTINGS have been seen by the other (RFC 9113 §3.4).
    fn is_shaken(&self) -> bool {
        self.hello == Hello::Done && self.acknowledged
    }

    /// Data waits, and has since then not moved.
    fn send_deadline(&mut self, now: Instant) -> Option<Instant> {
        if self.outgoing.len() == 0 && self.queued <= self.config.max_stalled {
            self.timers.stalled = None;
            return None;
        }
        let written = self.outgoing.written();
        let since = match self.timers.stalled {
            Some((since, then)) if then == written => since,
            _ => now,
        };
        self.timers.stalled = Some((since, written));
        Some(since + self.config.send_timeout)
    }

    fn keep_alive_deadline(&self) -> Option<Instant> {
        let keep_alive = self.config.keep_alive?;
        if let Some(since) = self.timers.probing {
            return since.checked_add(keep_alive.timeout);
        }
        if self.open == 0 && !keep_alive.when_idle {
            return None;
        }
        self.timers.heard.checked_add(keep_alive.interval)
    }

    /// Nobody has called for a while. Frames that belong to no call change nothing.
    fn idle_deadline(&mut self, now: Instant) -> Option<Instant> {
        let timeout = self.config.idle_timeout?;
        if self.streams.len() > 0 || self.timers.leaving != Leaving::No {
            self.timers.idle = None;
            return None;
        }
        let last = self.server.last_accepted;
        let since = match self.timers.idle {
            Some((since, then)) if then == last => since,
            _ => now,
        };
        self.timers.idle = Some((since, last));
        since.checked_add(timeout)
    }

    /// Does what is due at `now`. May write, and may end the connection.
    pub(crate) fn on_deadline(&mut self, now: Instant) -> Result<(), Fatal> {
        self.due(now).map_err(|fatal| self.fail(fatal))
    }

    fn due(&mut self, now: Instant) -> Result<(), Fatal> {
        if self.send_deadline(now).is_some_and(|at| at <= now) {
            return Err(Fatal::timeout(
                ErrorCode::ENHANCE_YOUR_CALM,
                "the peer does not read what is sent to it",
            ));
        }
        if let Some(fatal) = self.dead {
            return Err(fatal);
        }
        if !self.is_shaken() && self.timers.start + self.config.handshake_timeout <= now {
            return Err(Fatal::timeout(
                ErrorCode::SETTINGS_TIMEOUT,
                match (self.hello, self.role) {
                    (Hello::Done, _) => "SETTINGS not acknowledged in time",
                    (_, Role::Server) => "no preface and SETTINGS in time",
                    (_, Role::Client) => "no SETTINGS in time",
                },
            ));
        }
        let begun = [self.timers.unfinished, self.block.as_ref().map(|block| block.since)];
        if begun.into_iter().flatten().any(|since| since + self.config.frame_timeout <= now) {
            return Err(Fatal::timeout(
                ErrorCode::ENHANCE_YOUR_CALM,
                "a frame or header block did not end in time",
            ));
        }
        if self.timers.leaving == Leaving::Announced {
            let since = *self.timers.leaving_since.get_or_insert(now);
            if since + LAST_STREAM_TIMEOUT <= now {
                self.name_last_stream();
            }
        }
        if self.idle_deadline(now).is_some_and(|at| at <= now) {
            self.go_away();
        }
        if self.keep_alive_deadline().is_some_and(|at| at <= now) {
            if self.timers.probing.is_some() {
                return Err(Fatal::timeout(ErrorCode::NO_ERROR, "the peer does not answer PING"));
            }
            self.timers.probing = Some(now);
            self.write_control(kind::PING, 0, 0, &KEEP_ALIVE_PING);
        }
        Ok(())
    }
}

//! [`Memory`]: how much the connections of a server may hold together. Without it, many connections
//! that each keep their own limits could exhaust the process. Users share it.
//!
//! Bytes that are held longer than a turn are counted, in whole steps. So an ordinary connection,
//! which holds nothing while it sleeps, never changes the common sums. A user is *pressed* in two
//! cases: it holds more than its share while others hold something too, or all together hold more
//! than the limit and this user holds more than its part of the limit. Connections of other users
//! are not affected.
//!
//! Of a pressed user's connections that hold more than a little, one is read at a time ([`ReadPermits`]), in the
//! order in which they began to wait. It gives window to its oldest request first
//! (`http2/pressure.rs`), so that requests that have begun can finish. If a user holds a quarter
//! more than its share, the connection that is read keeps its permit as long as its peer has to act, and
//! with half of [`MARGIN`] more until it holds less. If all together hold a quarter more than the
//! limit, only one connection of the server is read.
//!
//! A pressed user's connections that hold little are read a little at a time, which is much if they
//! are thousands. Beyond that quarter and [`MARGIN`] they wait, too.
//!
//! A connection is never closed for what this server has not read. It is closed if it was read for
//! 10 s and did not become less, while its peer has to act, and its user is beyond that quarter or all
//! memory is used. If only handlers can free what it holds, it is closed after 60 s, and only while no
//! other connection is read because of it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::peak::Peak;
use super::read_permits::ReadPermits;
use super::rounds::{Line, Rounds};
use super::timer::now;

/// How many bytes connections that held little may add beyond a quarter more than the limit.
pub(super) const MARGIN: usize = 16 << 20;

/// How much a server's connections hold together.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    /// How much a foreign user may hold while others hold something.
    share: usize,
    own_uid: u32,
    /// How many users hold something.
    pub(super) holders: AtomicUsize,
    /// The permit for the whole server: one connection is read at a time while a quarter more than
    /// the limit is held.
    pub(super) read_permits: ReadPermits,
    pub(super) next: AtomicU64,
    users: Mutex<HashMap<Owner, Weak<User>>>,
    /// What all hold together.
    peak: Arc<Peak>,
    /// The order of the users' turns, which does not depend on what they hold.
    pub(super) rounds: Arc<Rounds>,
}

/// The user whose share a connection's memory counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// The server's own user, or an unknown one.
    Server,
    Uid(u32),
    /// All peers over TCP.
    Tcp,
}

/// How much the connections of one user hold.
#[derive(Debug)]
pub(crate) struct User {
    pub(super) memory: Arc<Memory>,
    owner: Owner,
    /// The number of this user.
    pub(super) number: u64,
    held: AtomicUsize,
    pub(super) read_permits: ReadPermits,
    /// Its connections that wait for a turn of their task.
    pub(super) line: Arc<Line>,
}

impl Memory {
    /// Returns memory of at most `limit` bytes and a quarter more, plus what connections read
    /// before they notice. A foreign user gets at most `share` of it.
    pub(crate) fn new(limit: usize, share: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            share: share.min(limit),
            own_uid: rustix::process::geteuid().as_raw(),
            holders: AtomicUsize::new(0),
            read_permits: ReadPermits::default(),
            next: AtomicU64::new(1),
            users: Mutex::default(),
            peak: Arc::default(),
            rounds: Arc::new(Rounds::new(now())),
        })
    }

    /// Returns the user that a connection belongs to.
    pub(crate) fn user(self: &Arc<Self>, owner: Owner) -> Arc<User> {
        let owner = match owner {
            Owner::Uid(uid) if uid == self.own_uid => Owner::Server,
            owner => owner,
        };
        let mut users = self.users();
        if let Some(user) = users.get(&owner).and_then(Weak::upgrade) {
            return user;
        }
        users.retain(|_, user| user.strong_count() > 0);
        let user = Arc::new(User {
            memory: Arc::clone(self),
            owner,
            number: self.next.fetch_add(1, Ordering::Relaxed),
            held: AtomicUsize::new(0),
            read_permits: ReadPermits::default(),
            line: Arc::default(),
        });
        users.insert(owner, Arc::downgrade(&user));
        user
    }

    /// Returns how many bytes are held.
    pub(crate) fn held(&self) -> usize {
        self.peak.held()
    }

    fn users(&self) -> MutexGuard<'_, HashMap<Owner, Weak<User>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_full(&self) -> bool {
        self.held() > self.limit
    }

    /// Returns whether a quarter more than the limit is held.
    pub(super) fn is_beyond(&self) -> bool {
        self.held() > a_quarter_more(self.limit)
    }

    /// Returns whether the margin beyond that quarter is held, too.
    pub(super) fn is_beyond_margin(&self) -> bool {
        self.held() > a_quarter_more(self.limit).saturating_add(MARGIN)
    }
}

/// Returns a quarter more than a limit. What has begun may go so far beyond it.
fn a_quarter_more(bytes: usize) -> usize {
    bytes.saturating_add(bytes / 4)
}

impl User {
    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Returns how much this user may hold, if that is less than all.
    fn share(&self) -> Option<usize> {
        let shared = self.memory.holders.load(Ordering::Relaxed) > 1;
        (shared && self.owner != Owner::Server).then_some(self.memory.share)
    }

    /// Returns whether this user has to wait.
    pub(super) fn is_pressed(&self) -> bool {
        let held = self.held();
        if self.share().is_some_and(|share| held > share) {
            return true;
        }
        let memory = &self.memory;
        let part = memory.limit / memory.holders.load(Ordering::Relaxed).max(1);
        memory.is_full() && held > part
    }

    /// Returns whether it holds a quarter more than it may.
    pub(super) fn is_beyond(&self) -> bool {
        self.is_beyond_by(0)
    }

    /// Returns whether it holds half of the margin more than that, too. The other half is for
    /// connections that hold little.
    pub(super) fn is_far_beyond(&self) -> bool {
        self.is_beyond_by(MARGIN / 2)
    }

    fn is_beyond_by(&self, bytes: usize) -> bool {
        let beyond = |held: usize, limit| held > a_quarter_more(limit).saturating_add(bytes);
        self.share().is_some_and(|share| beyond(self.held(), share))
            || beyond(self.memory.held(), self.memory.limit)
    }

    pub(super) fn add(&self, bytes: usize) {
        if self.held.fetch_add(bytes, Ordering::Relaxed) == 0 {
            self.memory.holders.fetch_add(1, Ordering::Relaxed);
        }
        self.memory.peak.add(bytes);
    }

    /// Notes that a connection has ended.
    pub(super) fn note_end(&self) {
        self.memory.peak.note_end();
    }

    pub(super) fn subtract(&self, bytes: usize) {
        self.memory.peak.subtract(bytes);
        if self.held.fetch_sub(bytes, Ordering::Relaxed) == bytes && bytes > 0 {
            self.memory.holders.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

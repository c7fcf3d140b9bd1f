//! [`Memory`]: what the connections of a server may hold together, so that many that each keep to
//! their own limits can't exhaust the process. It is shared by user.
//!
//! Counted is what outlives a turn, by whole steps, so that an ordinary connection, which holds
//! nothing while it sleeps, never touches the common sums. A user is *pressed* while it holds more than
//! its share and others hold something too, or while all hold more than the limit and this user more
//! than its part of it. Connections of other users go on as if nothing was.
//!
//! Of a pressed user's connections that hold something one is read at a time ([`Turns`]), in the order
//! in which they began to wait, and it gives credit to its oldest request first (`http2/pressure.rs`):
//! so what has begun can finish. Where a user holds a quarter more than its share the one that is read
//! stays the only one until it has got rid of something; where all hold a quarter more than the limit,
//! one in all is read.
//!
//! Nobody is closed for what this server has not read. A connection is closed that was read for
//! 10 s and got rid of nothing: while its user is beyond that quarter, or while all memory is
//! taken and it is the peer that has to go on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::peak::Peak;
use super::rounds::{Line, Rounds};
use super::timer::now;
use super::turns::Turns;

/// What a server's connections hold together.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    /// What a user other than the server's own may hold while others hold something.
    share: usize,
    own_uid: u32,
    held: AtomicUsize,
    /// Users that hold something.
    pub(super) holders: AtomicUsize,
    /// One connection in all goes on where more than a quarter beyond the limit is held.
    pub(super) turns: Turns,
    pub(super) next: AtomicU64,
    users: Mutex<HashMap<Owner, Weak<User>>>,
    peak: Arc<Peak>,
    /// Turns of users' connections, whatever they hold.
    pub(super) rounds: Arc<Rounds>,
}

/// On whose behalf a connection holds memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// The server's own user, and where there is no telling.
    Server,
    Uid(u32),
    /// All that connect over TCP.
    Tcp,
}

/// What the connections of one user hold.
#[derive(Debug)]
pub(crate) struct User {
    pub(super) memory: Arc<Memory>,
    owner: Owner,
    /// Tells users apart.
    pub(super) number: u64,
    held: AtomicUsize,
    pub(super) turns: Turns,
    /// Its connections that wait for a turn of their tasks.
    pub(super) line: Arc<Line>,
}

impl Memory {
    /// At most `limit` bytes and a quarter more, plus what connections read before they notice; `share`
    /// of it of one user.
    pub(crate) fn new(limit: usize, share: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            share: share.min(limit),
            own_uid: rustix::process::geteuid().as_raw(),
            held: AtomicUsize::new(0),
            holders: AtomicUsize::new(0),
            turns: Turns::default(),
            next: AtomicU64::new(1),
            users: Mutex::default(),
            peak: Arc::default(),
            rounds: Arc::new(Rounds::new(now())),
        })
    }

    /// The user that a connection belongs to.
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
            turns: Turns::default(),
            line: Arc::default(),
        });
        users.insert(owner, Arc::downgrade(&user));
        user
    }

    /// Bytes that are held.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn users(&self) -> MutexGuard<'_, HashMap<Owner, Weak<User>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_full(&self) -> bool {
        self.held() > self.limit
    }

    /// Whether a quarter more than the limit is held.
    pub(super) fn is_beyond(&self) -> bool {
        self.held() > self.limit.saturating_add(self.limit / 4)
    }
}

impl User {
    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// What this user may hold, where that is less than all.
    fn share(&self) -> Option<usize> {
        let shared = self.memory.holders.load(Ordering::Relaxed) > 1;
        (shared && self.owner != Owner::Server).then_some(self.memory.share)
    }

    /// Whether this user has to wait.
    pub(super) fn is_pressed(&self) -> bool {
        let held = self.held();
        if self.share().is_some_and(|share| held > share) {
            return true;
        }
        let memory = &self.memory;
        let part = memory.limit / memory.holders.load(Ordering::Relaxed).max(1);
        memory.is_full() && held > part
    }

    /// Whether a quarter more than it may hold is held.
    pub(super) fn is_beyond(&self) -> bool {
        let held = self.held();
        self.share().is_some_and(|share| held > share.saturating_add(share / 4))
            || self.memory.is_beyond()
    }

    pub(super) fn add(&self, bytes: usize) {
        if self.held.fetch_add(bytes, Ordering::Relaxed) == 0 {
            self.memory.holders.fetch_add(1, Ordering::Relaxed);
        }
        let held = self.memory.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.memory.peak.rise(held);
    }

    pub(super) fn subtract(&self, bytes: usize) {
        let held = self.memory.held.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        self.memory.peak.fall(held);
        if self.held.fetch_sub(bytes, Ordering::Relaxed) == bytes && bytes > 0 {
            self.memory.holders.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

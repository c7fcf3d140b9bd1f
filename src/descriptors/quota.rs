//! [`Quota`]: how many descriptors this process holds for its peers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::closer::PeerUid;
use super::limits::MAX_PER_CALL;

/// How many descriptors a group of connections holds, and how many it may hold. The group is a
/// server's connections, those of one user, or one connection.
#[derive(Debug)]
pub(crate) struct Quota {
    held: AtomicUsize,
    most: usize,
    /// Whether one set may exceed the limit if nothing else is held.
    or_one_set: bool,
}

impl Quota {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), most, or_one_set: false })
    }

    fn add(&self, count: usize) -> bool {
        let fits = |held: usize, sum: usize| sum <= self.most || held == 0 && self.or_one_set;
        let add = |held: usize| held.checked_add(count).filter(|sum| fits(held, *sum));
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// Returns how many descriptors this process may have open (RLIMIT_NOFILE, getrlimit(2)).
fn open_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX)
}

/// The quotas of a process, and of each foreign user.
#[derive(Debug)]
pub(crate) struct Quotas {
    all: Arc<Quota>,
    /// The limit for each foreign user.
    share: usize,
    own_uid: u32,
    users: Mutex<HashMap<Option<u32>, Weak<Quota>>>,
}

impl Quotas {
    pub(crate) fn of(all: usize, share: usize) -> Arc<Self> {
        let own_uid = rustix::process::geteuid().as_raw();
        Arc::new(Self { all: Quota::new(all), share, own_uid, users: Mutex::default() })
    }

    /// Returns quotas for one direction: a quarter of what this process may have open, and a
    /// quarter of that for each foreign user.
    fn of_the_process() -> Arc<Self> {
        let all = open_limit() / 4;
        Self::of(all, all / 4)
    }

    /// Returns quotas for descriptors that were sent and not read yet: half of those that the
    /// kernel lets this user have underway, and a quarter of that for each foreign user. The
    /// descriptors of one call always fit.
    pub(crate) fn underway() -> Arc<Self> {
        let all = (open_limit() / 2).max(MAX_PER_CALL);
        Self::of(all, (all / 4).max(MAX_PER_CALL))
    }

    /// Returns the quotas for one connection with a process of `uid`. One connection may hold half
    /// of what its user may, or the descriptors of one call. So it does not use up what other
    /// connections of its user need.
    fn of_connection(&self, uid: Option<u32>) -> Vec<Arc<Quota>> {
        let mut quotas = self.of_user(uid);
        let of_the_user = quotas.iter().map(|quota| quota.most).min().unwrap_or_default();
        let held = AtomicUsize::new(0);
        quotas.push(Arc::new(Quota { held, most: of_the_user / 2, or_one_set: true }));
        quotas
    }

    /// Returns the quotas for descriptors that come from, or go to, a process of `uid`. All unknown
    /// users count as one.
    pub(crate) fn of_user(&self, uid: Option<u32>) -> Vec<Arc<Quota>> {
        if uid == Some(self.own_uid) {
            return vec![Arc::clone(&self.all)];
        }
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let share = users.get(&uid).and_then(Weak::upgrade).unwrap_or_else(|| {
            users.retain(|_, share| share.strong_count() > 0);
            let share = Quota::new(self.share);
            users.insert(uid, Arc::downgrade(&share));
            share
        });
        vec![Arc::clone(&self.all), share]
    }
}

/// The quotas of a server, for each direction.
#[derive(Clone, Debug)]
pub(crate) struct ServerQuotas {
    received: Arc<Quotas>,
    responses: Arc<Quotas>,
}

impl ServerQuotas {
    pub(crate) fn of_the_process() -> Self {
        Self { received: Quotas::of_the_process(), responses: Quotas::of_the_process() }
    }

    /// Returns the quotas for one connection with a process of `uid`.
    pub(crate) fn of_connection(&self, uid: Option<u32>) -> ConnectionQuotas {
        ConnectionQuotas {
            received: self.received.of_connection(uid),
            responses: self.responses.of_connection(uid),
        }
    }
}

/// The quotas for the descriptors of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionQuotas {
    /// For descriptors that were received and not taken yet.
    pub(crate) received: Vec<Arc<Quota>>,
    /// Server: for descriptors of responses that wait to be sent.
    pub(crate) responses: Vec<Arc<Quota>>,
}

impl ConnectionQuotas {
    /// Returns a client's quotas: it may hold a quarter of what this process may have open.
    pub(crate) fn of_client() -> Self {
        Self { received: vec![Quota::new(open_limit() / 4)], responses: Vec::new() }
    }
}

/// The quotas for descriptors of one connection's responses, and the user that they go to.
#[derive(Debug)]
pub(crate) struct ResponseQuotas {
    pub(crate) quotas: Vec<Arc<Quota>>,
    pub(crate) user: PeerUid,
}

/// A part of one or more quotas, given back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Reservation {
    count: usize,
    quotas: Vec<Arc<Quota>>,
}

impl Reservation {
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Reserves `count` descriptors of each quota, or none at all.
    pub(crate) fn new<'a>(
        count: usize,
        quotas: impl IntoIterator<Item = &'a Arc<Quota>>,
    ) -> Option<Self> {
        let mut reservation = Self { count, quotas: Vec::new() };
        for quota in quotas {
            if !quota.add(count) {
                return None;
            }
            reservation.quotas.push(Arc::clone(quota));
        }
        Some(reservation)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        for quota in &self.quotas {
            quota.held.fetch_sub(self.count, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_foreign_user_has_a_share_and_the_own_user_none() {
        let own = rustix::process::geteuid().as_raw();
        let quotas = Quotas::of_the_process();
        assert_eq!(quotas.of_user(Some(own)).len(), 1);
        let first = quotas.of_user(Some(own + 1));
        let again = quotas.of_user(Some(own + 1));
        let other = quotas.of_user(Some(own + 2));
        assert!(Arc::ptr_eq(&first[1], &again[1]) && !Arc::ptr_eq(&first[1], &other[1]));
        assert!(first[1].most == first[0].most / 4);
    }

    #[test]
    fn one_connection_has_half_of_what_its_user_may() {
        let own = rustix::process::geteuid().as_raw();
        let quotas = Quotas::of(1_000, 100);
        for (uid, most) in [(own, 500), (own + 1, 50)] {
            let first = quotas.of_connection(Some(uid));
            let held = Reservation::new(most, &first).unwrap();
            assert!(Reservation::new(1, &first).is_none());
            assert!(Reservation::new(1, &quotas.of_connection(Some(uid))).is_some());
            drop(held);
        }
    }

    #[test]
    fn a_set_that_is_larger_than_one_connection_may_hold_goes_alone() {
        let own = Some(rustix::process::geteuid().as_raw());
        for (all, connection) in [(1_000, 500), (300, 253)] {
            let quotas = Quotas::of(all, all);
            let first = quotas.of_connection(own);
            let second = quotas.of_connection(own);
            let held = Reservation::new(connection, &first).unwrap();
            assert!(Reservation::new(1, &first).is_none());
            assert!(Reservation::new(1, &second).is_some());
            drop(held);
            // A set that is too large is accepted if it is alone.
            let other = Reservation::new(1, &first).unwrap();
            assert!(Reservation::new(connection, &first).is_none());
            drop(other);
        }
    }
}

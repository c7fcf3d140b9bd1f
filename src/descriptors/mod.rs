//! [`Descriptors`]: open files that travel with a call, and how many of them this process holds.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

pub(crate) mod closer;

use closer::User;

/// The kernel sends no more with one message (SCM_MAX_FD, unix(7)).
pub(crate) const MAX_PER_CALL: usize = 253;

/// Open file descriptors that travel with a call, over a Unix socket.
///
/// A caller inserts them among its request's extensions, and the handler takes them out of the
/// extensions of the request that it gets; a response carries them the same way back. Both ends have
/// to ask for it: `Server::descriptors` and `ChannelBuilder::descriptors`.
///
/// Clones share one list. The library empties it when the call ends: what was not
/// [taken](Self::take) by then is closed, on a thread of its own, since closing a foreign descriptor
/// can block.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// use std::os::fd::OwnedFd;
///
/// use samehost::Descriptors;
///
/// let file: OwnedFd = std::fs::File::open("/dev/null")?.into();
/// let mut request = tonic::Request::new(());
/// request.extensions_mut().insert(Descriptors::from([file]));
/// // At the other end:
/// let descriptors = request.extensions_mut().remove::<Descriptors>().unwrap_or_default();
/// assert_eq!(descriptors.take().len(), 1);
/// # Ok(()) }
/// ```
#[doc(alias = "SCM_RIGHTS")]
#[derive(Clone, Default)]
pub struct Descriptors {
    list: Arc<Mutex<List>>,
}

#[derive(Default)]
struct List {
    descriptors: Vec<OwnedFd>,
    /// What these were counted against when they were received.
    reservation: Option<Reservation>,
    /// Who sent them.
    user: User,
}

impl Descriptors {
    /// Returns an empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns how many are in the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().descriptors.len()
    }

    /// Returns whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes all descriptors out of the list, in the order in which they were sent. The caller closes
    /// them by dropping them; dropping a foreign descriptor can block the thread.
    #[must_use = "what is dropped at once is closed at once, on this thread"]
    pub fn take(&self) -> Vec<OwnedFd> {
        let mut list = self.lock();
        list.reservation = None;
        std::mem::take(&mut list.descriptors)
    }

    /// A received set, which counts against `reservation` until it is taken or closed.
    fn received(descriptors: Vec<OwnedFd>, reservation: Reservation, user: User) -> Self {
        let list = List { descriptors, reservation: Some(reservation), user };
        Self { list: Arc::new(Mutex::new(list)) }
    }

    /// Empties the list at the end of its call.
    pub(crate) fn close(&self) {
        std::mem::take(&mut *self.lock()).close();
    }

    /// Runs `act` on the descriptors without taking them.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&[OwnedFd]) -> R) -> R {
        act(&self.lock().descriptors)
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A set of descriptors as it came from the socket.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// `None` where the kernel dropped some.
    count: Option<usize>,
    /// The set, or why this process cannot take it.
    pub(crate) set: Result<Descriptors, &'static str>,
}

impl Arrived {
    /// Takes what one recvmsg(2) brought from a process of `user`, as far as each of `quotas` allows
    /// it. What is not taken is closed, elsewhere.
    pub(crate) fn new(
        descriptors: Vec<OwnedFd>,
        truncated: bool,
        quotas: &[Arc<Quota>],
        user: User,
    ) -> Self {
        let count = (!truncated).then_some(descriptors.len());
        let refuse = |descriptors, why| {
            closer::close(user, descriptors, ());
            Self { count, set: Err(why) }
        };
        if truncated {
            return refuse(descriptors, "the process cannot open so many file descriptors");
        }
        match Reservation::new(descriptors.len(), quotas) {
            Some(reservation) => {
                Self { count, set: Ok(Descriptors::received(descriptors, reservation, user)) }
            }
            None => refuse(descriptors, "too many file descriptors are held already"),
        }
    }

    /// Whether a peer that announced `count` can have sent this set.
    pub(crate) fn fits(&self, count: usize) -> bool {
        self.count.is_none_or(|own| own == count)
    }
}

impl List {
    fn close(&mut self) {
        closer::close(self.user, std::mem::take(&mut self.descriptors), self.reservation.take());
    }
}

impl Drop for List {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T: Into<OwnedFd>, const N: usize> From<[T; N]> for Descriptors {
    fn from(descriptors: [T; N]) -> Self {
        descriptors.into_iter().collect()
    }
}

impl From<Vec<OwnedFd>> for Descriptors {
    fn from(descriptors: Vec<OwnedFd>) -> Self {
        Self { list: Arc::new(Mutex::new(List { descriptors, reservation: None, user: None })) }
    }
}

impl<T: Into<OwnedFd>> FromIterator<T> for Descriptors {
    fn from_iter<I: IntoIterator<Item = T>>(descriptors: I) -> Self {
        Self::from(descriptors.into_iter().map(Into::into).collect::<Vec<_>>())
    }
}

impl fmt::Debug for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptors").field("len", &self.len()).finish()
    }
}

/// The descriptors of a call that this end makes. They are closed when it ends.
#[derive(Debug, Default)]
pub(crate) struct OfCall(pub(crate) Option<Descriptors>);

impl Drop for OfCall {
    fn drop(&mut self) {
        if let Some(descriptors) = &self.0 {
            descriptors.close();
        }
    }
}

/// How many received descriptors one group of connections holds, and how many it may: a server, or
/// one user of it.
#[derive(Debug)]
pub(crate) struct Quota {
    held: AtomicUsize,
    most: usize,
}

impl Quota {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), most })
    }

    /// A quarter of what this process may have open.
    pub(crate) fn of_the_process() -> Arc<Self> {
        Self::new(open_limit() / 4)
    }

    fn add(&self, count: usize) -> bool {
        let add = |held: usize| held.checked_add(count).filter(|held| *held <= self.most);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// How many descriptors this process may have open (RLIMIT_NOFILE, getrlimit(2)).
fn open_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX)
}

/// The quotas of a process, and of each user other than its own.
#[derive(Debug)]
pub(crate) struct Quotas {
    all: Arc<Quota>,
    /// Of each other user.
    share: usize,
    own_uid: u32,
    users: Mutex<HashMap<Option<u32>, Weak<Quota>>>,
}

impl Quotas {
    pub(crate) fn of(all: usize, share: usize) -> Arc<Self> {
        let own_uid = rustix::process::geteuid().as_raw();
        Arc::new(Self { all: Quota::new(all), share, own_uid, users: Mutex::default() })
    }

    /// Of descriptors that were received: a quarter of what this process may have open, and a quarter
    /// of that for one other user.
    pub(crate) fn of_the_process() -> Arc<Self> {
        let all = open_limit() / 4;
        Self::of(all, all / 4)
    }

    /// Of descriptors that were sent and not read yet: half of those that the kernel lets this user
    /// have underway, and a quarter of that for one other user. One call's fit in any case.
    pub(crate) fn underway() -> Arc<Self> {
        let all = (open_limit() / 2).max(MAX_PER_CALL);
        Self::of(all, (all / 4).max(MAX_PER_CALL))
    }

    /// What descriptors count against that are received on one connection with a process of `uid`. One
    /// connection may hold half of what all may, and always one call's.
    pub(crate) fn of_connection(&self, uid: Option<u32>) -> Vec<Arc<Quota>> {
        let mut quotas = self.of_user(uid);
        quotas.push(Quota::new((self.all.most / 2).max(MAX_PER_CALL)));
        quotas
    }

    /// What descriptors count against that come from a process of `uid`. Users that are not known are
    /// one.
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

    /// Reserves `count` of each quota, or nothing.
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
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn clones_share_one_list_that_is_emptied_at_the_end() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let descriptors = Descriptors::from([theirs]);
        let clone = descriptors.clone();
        assert_eq!((clone.len(), clone.is_empty()), (1, false));
        descriptors.close();
        assert!(clone.is_empty());
        assert!(clone.take().is_empty());
        // It blocks until the other thread has closed the socket.
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn the_last_clone_closes_what_nobody_took() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let descriptors = Descriptors::from([theirs]);
        drop(descriptors.clone());
        assert_eq!(descriptors.len(), 1);
        drop(descriptors);
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    }

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
    fn one_connection_has_half_of_all_and_at_least_one_calls() {
        let own = Some(rustix::process::geteuid().as_raw());
        for (all, connection) in [(1_000, 500), (300, 253)] {
            let quotas = Quotas::of(all, all);
            let first = quotas.of_connection(own);
            let second = quotas.of_connection(own);
            let held = Reservation::new(connection, &first).unwrap();
            assert!(Reservation::new(1, &first).is_none());
            assert!(Reservation::new(1, &second).is_some());
            drop(held);
        }
    }

    #[test]
    fn a_reservation_holds_until_the_descriptors_are_taken_or_closed() {
        let server = Quota::new(8);
        let user = Quota::new(2);
        let reserve = |count| Reservation::new(count, [&server, &user]);
        let received = |reservation| {
            let (ours, _) = UnixStream::pair().unwrap();
            Descriptors::received(vec![ours.into()], reservation, None)
        };
        let first = received(reserve(2).unwrap());
        // The user's quarter is full, and what the server lent for the attempt is given back.
        assert!(reserve(1).is_none());
        assert_eq!((server.held(), user.held()), (2, 2));
        drop(first.take());
        assert_eq!((server.held(), user.held()), (0, 0));
        let second = received(reserve(2).unwrap());
        drop(second);
        while server.held() > 0 {
            std::thread::yield_now();
        }
        assert!(reserve(2).is_some());
    }
}

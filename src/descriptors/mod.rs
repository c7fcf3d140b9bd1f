//! [`Descriptors`]: open files that travel with a call.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) mod closer;
mod limits;
mod quota;

use closer::PeerUid;
pub(crate) use limits::MAX_PER_CALL;
pub(crate) use quota::{
    ConnectionQuotas, Quota, Quotas, Reservation, ResponseQuotas, ServerQuotas,
};

/// Open file descriptors that travel with a call, over a Unix socket.
///
/// A caller inserts them into its request's extensions, and the handler takes them out of the
/// request's extensions. A response carries them back in the same way. Both ends have to ask for
/// it: `Server::descriptors` and `ChannelBuilder::descriptors`.
///
/// Clones share one list. The library empties it when the call ends, and the list of a response
/// when the handler has returned it. Descriptors that were not [taken](Self::take) by then are
/// closed. A thread of its own does that, because closing a foreign descriptor can block.
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
    /// The quotas of descriptors that were received, or of a response that waits to be sent.
    reservation: Option<Reservation>,
    /// The user that sent them, or that receives the response.
    user: PeerUid,
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

    /// Takes all descriptors out of the list, in the order in which they were sent. The caller
    /// closes them by dropping them. Dropping a foreign descriptor can block the thread.
    #[must_use = "what is dropped at once is closed at once, on this thread"]
    pub fn take(&self) -> Vec<OwnedFd> {
        let mut list = self.lock();
        list.reservation = None;
        std::mem::take(&mut list.descriptors)
    }

    /// Returns a received set, which counts against `reservation` until it is taken or closed.
    fn received(descriptors: Vec<OwnedFd>, reservation: Reservation, user: PeerUid) -> Self {
        let list = List { descriptors, reservation: Some(reservation), user };
        Self { list: Arc::new(Mutex::new(list)) }
    }

    /// Moves the descriptors of a response out of the handler's list. They count against `quotas`
    /// until they are closed here: when they were sent, or when the call ends before that. If they
    /// are too many, they are closed on another thread, and `None` is returned.
    pub(crate) fn of_response(
        &self,
        ResponseQuotas { quotas, user }: &ResponseQuotas,
    ) -> Option<Self> {
        let mut list = std::mem::take(&mut *self.lock());
        list.user = *user;
        list.reservation = Some(Reservation::new(list.descriptors.len(), quotas)?);
        Some(Self { list: Arc::new(Mutex::new(list)) })
    }

    /// Empties the list at the end of its call.
    pub(crate) fn close(&self) {
        std::mem::take(&mut *self.lock()).close();
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A set of descriptors that a frame announces.
#[derive(Clone, Debug)]
pub(crate) struct AnnouncedSet {
    descriptors: Descriptors,
    count: usize,
}

impl AnnouncedSet {
    /// Returns `None` if there are none.
    pub(crate) fn new(descriptors: &Descriptors) -> Option<Self> {
        let count = descriptors.len();
        (count > 0).then(|| Self { descriptors: descriptors.clone(), count })
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Runs `act` on the descriptors without taking them. Meanwhile nobody else can take or close
    /// them.
    ///
    /// # Errors
    ///
    /// [`NotFound`](io::ErrorKind::NotFound) if they are no longer there: the call has ended, or the
    /// caller has taken them back.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&[OwnedFd]) -> io::Result<R>) -> io::Result<R> {
        let list = self.descriptors.lock();
        match list.descriptors.len() == self.count {
            true => act(&list.descriptors),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(crate) fn close(&self) {
        self.descriptors.close();
    }
}

/// A set of descriptors as it came from the socket.
#[derive(Debug)]
pub(crate) struct ReceivedSet {
    /// `None` if the kernel dropped some.
    count: Option<usize>,
    /// The set, or why this process cannot take it.
    pub(crate) set: Result<Descriptors, &'static str>,
}

impl ReceivedSet {
    /// Takes the descriptors that one recvmsg(2) brought from a process of `user`, if each of
    /// `quotas` allows it. Otherwise they are closed on another thread.
    pub(crate) fn new(
        descriptors: Vec<OwnedFd>,
        truncated: bool,
        quotas: &[Arc<Quota>],
        user: PeerUid,
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

    /// Returns whether a peer that announced `count` can have sent this set.
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
        // This blocks until the other thread has closed the socket.
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
    fn those_of_a_response_count_until_they_are_closed_and_leave_the_handlers_list() {
        let quotas = ResponseQuotas { quotas: vec![Quota::new(2)], user: None };
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let list = Descriptors::from([theirs]);
        let waiting = list.of_response(&quotas).unwrap();
        assert_eq!((list.len(), waiting.len(), quotas.quotas[0].held()), (0, 1, 1));
        let (mut others, theirs) = UnixStream::pair().unwrap();
        let many = Descriptors::from([theirs.try_clone().unwrap(), theirs]);
        assert!(many.of_response(&quotas).is_none());
        assert_eq!(others.read(&mut [0]).unwrap(), 0);
        drop(waiting);
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
        while quotas.quotas[0].held() > 0 {
            std::thread::yield_now();
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

//! [`Channel`]: a way to one server for calls that block.

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use super::builder::ChannelBuilder;
use super::connection::{BlockingConnection, TimedOut};
use super::reader::left;
use super::waiting::WaitsFor;
use crate::address::{Address, AddressParseError};
use crate::backoff::{Backoff, jittered};
use crate::client::{Reopening, Tokens, WAITING, check_server, not_ready};
use crate::observer::{Event, Observers};
use crate::socket::{ConnectError, ConnectErrorKind, connect_blocking};

/// A client's way to one server, for calls that block. See the [module](super). Clones share one
/// connection, which is opened at the first call and opened again after it has ended.
///
/// A call that no server has processed (RFC 9113 §8.7) is sent again, up to five times. No other
/// call is repeated, unless there is a [`RetryPolicy`](crate::RetryPolicy). Errors are
/// [`Status`](tonic::Status)es. If there is no connection, the status is UNAVAILABLE with the
/// [`ConnectError`] as its source. A call has no deadline unless the caller sets one, by
/// `Request::set_timeout` or [`ChannelBuilder::timeout`]. A response over a Unix socket has the
/// server's [`PeerIdentity`](crate::PeerIdentity) among its extensions. A request with
/// [`Descriptors`](crate::Descriptors) fails with FAILED_PRECONDITION: this channel sends none.
#[derive(Clone)]
pub struct Channel(Arc<BlockingCore>);

struct BlockingCore {
    config: ChannelBuilder,
    observers: Option<Observers>,
    /// The tokens of the retry policy.
    tokens: Tokens,
    current: Mutex<Current>,
    /// Notified when a thread that was connecting has finished.
    connected: Condvar,
}

#[derive(Default)]
struct Current {
    connection: Option<Arc<BlockingConnection>>,
    /// The thread that opens a connection for all threads that need one.
    opening: Option<ThreadId>,
    /// How many attempts have failed, and the error of the last one.
    failures: u64,
    failure: Option<FailedConnect>,
}

/// Why an attempt to connect has failed.
#[derive(Clone)]
struct FailedConnect {
    error: ConnectError,
    /// Whether the deadline of the call that made it cut it off. It tells other calls nothing.
    is_cut_off: bool,
}

impl From<ConnectError> for FailedConnect {
    fn from(error: ConnectError) -> Self {
        Self { error, is_cut_off: false }
    }
}

impl ChannelBuilder {
    /// Returns a channel that is connected: the server has sent its SETTINGS.
    ///
    /// # Errors
    ///
    /// A [`ConnectError`] that says what to do. It comes after the connect timeout at the latest, unless
    /// the resolver of a host name takes longer.
    pub fn connect(self) -> Result<Channel, ConnectError> {
        let channel = self.connect_lazy();
        channel.connect_once(None, false)?;
        Ok(channel)
    }

    /// Returns a channel that connects at its first call. A call that finds no server fails with
    /// UNAVAILABLE; the next one tries again.
    pub fn connect_lazy(self) -> Channel {
        Channel::new(self)
    }

    /// Opens a connection, and waits until the server speaks.
    fn open(
        &self,
        observers: Option<&Observers>,
        deadline: Option<Instant>,
    ) -> Result<BlockingConnection, FailedConnect> {
        let address = self.address.clone().map_err(ConnectError::from)?;
        let Some(observers) = observers else { return self.attempt(&address, None, deadline) };
        let began = Instant::now();
        observers.tell(&Event::ConnectBegan { address: Some(&address) });
        let result = self.attempt(&address, Some(observers), deadline);
        if let Err(FailedConnect { error, .. }) = &result {
            let (address, duration) = (Some(&*address), began.elapsed());
            observers.tell(&Event::ConnectFailed { address, error, duration });
        }
        result
    }

    fn attempt(
        &self,
        address: &Arc<Address>,
        observers: Option<&Observers>,
        deadline: Option<Instant>,
    ) -> Result<BlockingConnection, FailedConnect> {
        let latest = Instant::now().checked_add(self.connect_timeout);
        let until = latest.into_iter().chain(deadline).min();
        let limit = (until == latest).then_some(self.connect_timeout);
        self.attempt_until(address, observers, until, limit).map_err(|error| {
            let is_late = error.kind() == ConnectErrorKind::TimedOut;
            FailedConnect { error, is_cut_off: is_late && limit.is_none() }
        })
    }

    /// Makes an attempt. `limit` is the connect timeout, unless a call's deadline comes first.
    fn attempt_until(
        &self,
        address: &Arc<Address>,
        observers: Option<&Observers>,
        until: Option<Instant>,
        limit: Option<Duration>,
    ) -> Result<BlockingConnection, ConnectError> {
        let mut reopening = Reopening::new();
        loop {
            let (socket, peer) = connect_blocking(address, until, limit)?;
            if let Some(policy) = &self.server {
                check_server(policy, peer.identity(), address)?;
            }
            let connection = BlockingConnection::new(socket, Arc::clone(address), &peer, observers);
            let ready = connection.until(WaitsFor::Slot, until, |state| match state.end() {
                Some(close_reason) => Some(Err(Some(close_reason))),
                // The server has announced its end.
                None if !state.h2.takes_requests() => Some(Err(None)),
                None => state.ready.then_some(Ok(())),
            });
            let close_reason = match ready {
                Ok(Ok(())) => return Ok(connection),
                Ok(Err(close_reason)) => close_reason,
                Err(TimedOut) => return Err(ConnectError::silent(Some(address), limit)),
            };
            drop(connection);
            match reopening.next(close_reason.as_ref()) {
                Some(wait) => thread::sleep(left(until).map_or(wait, |left| wait.min(left))),
                None => return Err(not_ready(Some(address), close_reason)),
            }
        }
    }
}

impl Channel {
    /// Returns a channel that is connected to `address`, with the defaults of [`ChannelBuilder`].
    ///
    /// # Errors
    ///
    /// See [`ChannelBuilder::connect`].
    pub fn connect<A>(address: A) -> Result<Self, ConnectError>
    where
        A: TryInto<Address, Error: Into<AddressParseError>>,
    {
        Self::builder(address).connect()
    }

    /// Returns options for a channel. If `address` is not an address, connecting reports it.
    pub fn builder<A>(address: A) -> ChannelBuilder
    where
        A: TryInto<Address, Error: Into<AddressParseError>>,
    {
        ChannelBuilder::new(address.try_into().map(Arc::new).map_err(Into::into))
    }

    pub(super) fn new(config: ChannelBuilder) -> Self {
        Self(Arc::new(BlockingCore {
            observers: config.observers(),
            tokens: Tokens::new(config.retry.as_ref()),
            config,
            current: Mutex::default(),
            connected: Condvar::new(),
        }))
    }

    pub(super) fn config(&self) -> &ChannelBuilder {
        &self.0.config
    }

    pub(super) fn observers(&self) -> Option<&Observers> {
        self.0.observers.as_ref()
    }

    pub(super) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    /// Returns the connection, and opens one if there is none that takes calls.
    ///
    /// `waits` means that it waits for a server. `looks` means that it first checks whether the
    /// server has ended the connection.
    ///
    /// # Errors
    ///
    /// Why there is no connection. The kind is also `TimedOut` if the deadline has passed.
    pub(super) fn connection(
        &self,
        deadline: Option<Instant>,
        waits: bool,
        looks: bool,
    ) -> Result<Arc<BlockingConnection>, ConnectError> {
        if !waits {
            return self.connect_once(deadline, looks);
        }
        let mut backoff: Backoff = WAITING;
        loop {
            let error = match self.connect_once(deadline, looks) {
                // A call that this thread makes while it opens the connection would wait for itself.
                Err(error) if !error.kind().is_permanent() && !self.is_opening() => error,
                result => return result,
            };
            let wait = jittered(backoff.next());
            if let Some(observers) = self.observers() {
                observers.tell(&Event::BackoffBegan { wait });
            }
            thread::sleep(left(deadline).map_or(wait, |left| wait.min(left)));
            if left(deadline).is_some_and(|left| left.is_zero()) {
                return Err(error);
            }
        }
    }

    /// Makes one attempt, which is shared by all calls that come meanwhile.
    fn connect_once(
        &self,
        deadline: Option<Instant>,
        looks: bool,
    ) -> Result<Arc<BlockingConnection>, ConnectError> {
        if let Some(connection) = self.usable(looks) {
            return Ok(connection);
        }
        let mut current = self.lock();
        let before = current.failures;
        while let Some(opening) = current.opening {
            if opening == thread::current().id() {
                return Err(self.within_connecting());
            }
            current = self.wait(current, deadline)?;
            match &current.failure {
                Some(failed) if current.failures != before && !failed.is_cut_off => {
                    return Err(failed.error.clone());
                }
                _ => {}
            }
        }
        let earlier = current.connection.clone();
        current.opening = Some(thread::current().id());
        drop(current);
        let opening = Opening(self);
        // Another thread may have opened the connection since this one checked.
        if let Some(connection) = earlier.filter(|connection| connection.is_open(looks)) {
            return Ok(connection);
        }
        let opened = self.config().open(self.observers(), deadline).map(Arc::new);
        let mut current = self.lock();
        let ended = match &opened {
            Ok(connection) => current.connection.replace(Arc::clone(connection)),
            Err(failed) => {
                current.failures += 1;
                current.failure = Some(failed.clone());
                current.connection.take()
            }
        };
        // Dropping a connection tells observers that it has ended. No lock may be held while
        // observers run.
        drop(current);
        drop(opening);
        drop(ended);
        opened.map_err(|failed| failed.error)
    }

    /// Returns whether this thread is opening the connection.
    fn is_opening(&self) -> bool {
        self.lock().opening == Some(thread::current().id())
    }

    /// Returns the error for a call that an observer makes while it is told that the channel
    /// connects. The call would wait for this very thread.
    fn within_connecting(&self) -> ConnectError {
        let cause = "this thread is opening the connection: an observer that is told of it can make calls \
                     only from another thread";
        match &self.config().address {
            Ok(address) => ConnectError::io(address, io::Error::other(cause)),
            Err(error) => error.clone().into(),
        }
    }

    fn usable(&self, looks: bool) -> Option<Arc<BlockingConnection>> {
        let connection = self.lock().connection.clone();
        connection.filter(|connection| connection.is_open(looks))
    }

    /// Waits until another thread has connected, or has failed.
    fn wait<'a>(
        &self,
        current: MutexGuard<'a, Current>,
        deadline: Option<Instant>,
    ) -> Result<MutexGuard<'a, Current>, ConnectError> {
        let Some(deadline) = deadline else {
            return Ok(self.0.connected.wait(current).unwrap_or_else(PoisonError::into_inner));
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let address = self.config().address.clone().map_err(ConnectError::from)?;
            return Err(ConnectError::timed_out(Some(&address), None));
        }
        let waited = self.0.connected.wait_timeout(current, left);
        Ok(waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.0.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that opens a connection. When it ends for any reason, others may open one.
struct Opening<'a>(&'a Channel);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.lock().opening = None;
        self.0.0.connected.notify_all();
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("config", &self.0.config).finish_non_exhaustive()
    }
}

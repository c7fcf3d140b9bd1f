//! [`Channel`]: a way to one server for calls that block.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tonic::Status;

use super::connection::{Connection, TimedOut};
use crate::address::{Address, AddressParseError};
use crate::driver::CloseReason;
use crate::socket::{CONNECT_TIMEOUT, ConnectError, connect_blocking};

/// How often a connection is opened again at once if the server ended before it was ready. Its
/// successor may already be there.
const SUCCESSORS: u32 = 2;

/// A client's way to one server, for calls that block. See the [module](super). Clones share one
/// connection, which is opened at the first call and opened again after it was lost.
///
/// A call that no server has processed is sent again. No other call is repeated. Errors are
/// [`Status`]es. If there is no connection, the status is UNAVAILABLE with the [`ConnectError`] as
/// its source. A call has no deadline unless the caller sets one, by `Request::set_timeout` or
/// [`ChannelBuilder::timeout`].
#[derive(Clone)]
pub struct Channel(Arc<Inner>);

struct Inner {
    config: ChannelBuilder,
    connection: Mutex<Option<Arc<Connection>>>,
}

/// The options of a [`Channel`]: how it connects and calls. [`Channel::builder`] makes it.
#[derive(Clone, Debug)]
pub struct ChannelBuilder {
    address: Result<Arc<Address>, AddressParseError>,
    connect_timeout: Duration,
    timeout: Option<Duration>,
}

impl ChannelBuilder {
    /// Sets how long connecting may take, until the server begins to speak. A host name is resolved
    /// before that, without a limit. Default: 20 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the deadline of calls that have none of their own, counted from the moment the call is
    /// made. It holds at both ends. Default: none.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Returns a channel that is connected: the server has sent its SETTINGS.
    ///
    /// # Errors
    ///
    /// A [`ConnectError`] that says what to do. It comes after the connect timeout at the latest.
    pub fn connect(self) -> Result<Channel, ConnectError> {
        let channel = self.connect_lazy();
        channel.connection(None)?;
        Ok(channel)
    }

    /// Returns a channel that connects at its first call.
    pub fn connect_lazy(self) -> Channel {
        Channel(Arc::new(Inner { config: self, connection: Mutex::default() }))
    }

    fn open(&self, deadline: Option<Instant>) -> Result<Connection, ConnectError> {
        let address = self.address.clone().map_err(ConnectError::from)?;
        let until = Instant::now().checked_add(self.connect_timeout);
        let until = until.into_iter().chain(deadline).min();
        let mut again = SUCCESSORS;
        loop {
            let socket = connect_blocking(&address, until, self.connect_timeout)?;
            let connection = Connection::new(socket, Arc::clone(&address));
            let ready = connection.until(until, |state| match &state.close_reason {
                Some(close_reason) => Some(Err(close_reason.clone())),
                None => state.ready.then_some(Ok(())),
            });
            match ready {
                Ok(Ok(())) => return Ok(connection),
                Ok(Err(CloseReason::Closed | CloseReason::Io(_))) if again > 0 => again -= 1,
                Ok(Err(close_reason @ CloseReason::NotHttp2(_))) => {
                    return Err(ConnectError::not_http2(Some(&address), &close_reason));
                }
                Ok(Err(close_reason)) => {
                    return Err(ConnectError::closed(Some(&address), &close_reason));
                }
                Err(TimedOut) => {
                    return Err(ConnectError::silent(Some(&address), self.connect_timeout));
                }
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
        let address = address.try_into().map(Arc::new).map_err(Into::into);
        ChannelBuilder { address, connect_timeout: CONNECT_TIMEOUT, timeout: None }
    }

    /// Returns the default deadline.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.0.config.timeout
    }

    /// Returns the connection, and opens one if there is none that takes calls. Calls that come
    /// meanwhile wait for it.
    pub(super) fn connection(
        &self,
        deadline: Option<Instant>,
    ) -> Result<Arc<Connection>, ConnectError> {
        let mut place = self.0.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = place.as_ref().filter(|connection| connection.is_open()) {
            return Ok(Arc::clone(connection));
        }
        let opened = Arc::new(self.0.config.open(deadline)?);
        *place = Some(Arc::clone(&opened));
        Ok(opened)
    }
}

/// Returns UNAVAILABLE, with the error as its source.
pub(super) fn unavailable(error: ConnectError) -> Status {
    let mut status = Status::unavailable(error.to_string());
    status.set_source(Arc::new(error));
    status
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("config", &self.0.config).finish_non_exhaustive()
    }
}

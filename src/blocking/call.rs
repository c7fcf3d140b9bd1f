//! [`Call`]: one call on a connection, from its request to the end of its response.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue, StatusCode};
use tonic::{Code, Status};

use super::channel::{Channel, unavailable};
use super::connection::{Connection, State, TimedOut};
use crate::driver::{CloseReason, StreamError};
use crate::grpc::{GRPC_TIMEOUT, field, grpc_timeout, normalise, not_grpc, status, timeout_value};
use crate::http2::{Body, Content, NotNow, Progress, Read, SendRequest, StreamKey};

/// How often a call that no server has processed is sent again.
const RESENDS: u32 = 5;

/// The authority of every request.
const AUTHORITY: &[u8] = b"localhost";

static AGENT: HeaderValue =
    HeaderValue::from_static(concat!("grpc-rust-samehost/", env!("CARGO_PKG_VERSION")));

static AGENT_NAME: HeaderName = USER_AGENT;

/// The head of a request, and its deadline.
pub(super) struct Asked {
    pub(super) path: &'static str,
    pub(super) headers: HeaderMap,
    pub(super) deadline: Deadline,
}

/// The moment when a call has to have ended, and the status that it gets after that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    at: Option<Instant>,
    timeout: Duration,
    path: &'static str,
}

impl Deadline {
    fn exceeded(&self) -> Status {
        let Self { timeout, path, .. } = self;
        Status::deadline_exceeded(format!(
            "{path}: the response was not complete within the deadline of {timeout:?}"
        ))
    }

    /// Returns the status of a call that has failed. After the deadline that is the deadline's
    /// status, whichever end has ended the call.
    fn or(&self, status: Status) -> Status {
        match self.at {
            Some(at) if at <= Instant::now() => self.exceeded(),
            _ => status,
        }
    }
}

impl Asked {
    /// Returns what is asked for, with the channel's deadline if the headers have none.
    pub(super) fn new(channel: &Channel, path: &'static str, mut headers: HeaderMap) -> Self {
        let mut timeout: Option<Duration> = grpc_timeout(&headers);
        if timeout.is_none()
            && let Some(default) = channel.timeout()
        {
            headers.insert(GRPC_TIMEOUT, timeout_value(default));
            timeout = Some(default);
        }
        let at = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let deadline = Deadline { at, timeout: timeout.unwrap_or_default(), path };
        Self { path, headers, deadline }
    }
}

/// The head of a response.
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

/// A call. If it is dropped before its end, it is cancelled.
pub(super) struct Call {
    connection: Arc<Connection>,
    key: StreamKey,
    deadline: Deadline,
    /// What was read together with the response's head: its messages, or its end.
    arrived: VecDeque<Next>,
    over: bool,
}

/// The next part of a response.
pub(super) enum Next {
    Data(Bytes),
    End(Option<HeaderMap>),
}

/// Why a call has no response.
pub(super) enum Unsent {
    /// No server has processed it, so it can be sent again.
    Again(Status),
    Failed(Status),
}

impl From<Unsent> for Status {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Again(status) | Unsent::Failed(status) => status,
        }
    }
}

/// Makes a call of one message, and waits for the head of its response. Sends it again while no server has
/// processed it.
pub(super) fn ask(
    channel: &Channel,
    asked: &Asked,
    message: &[u8],
) -> Result<(Call, Head), Status> {
    let mut resends = 0;
    loop {
        let attempt = Call::open(channel, asked, false).and_then(|mut call| {
            call.send(message.to_vec(), true)?;
            let head = call.head()?;
            Ok((call, head))
        });
        match attempt {
            Err(Unsent::Again(_)) if resends < RESENDS => resends += 1,
            attempt => return attempt.map_err(Into::into),
        }
    }
}

impl Call {
    /// Sends the head of a request.
    pub(super) fn open(channel: &Channel, asked: &Asked, end: bool) -> Result<Self, Unsent> {
        let deadline = asked.deadline;
        let connect = |error| Unsent::Failed(deadline.or(unavailable(error)));
        let connection = channel.connection(deadline.at).map_err(connect)?;
        let agent = field(&asked.headers, &USER_AGENT).is_none();
        let agent = agent.then_some((&AGENT_NAME, &AGENT));
        let request = SendRequest {
            method: "POST",
            scheme: "http",
            authority: AUTHORITY,
            path: asked.path,
            headers: &asked.headers,
            more: [agent, None],
            id: None,
            descriptors: None,
        };
        let opened =
            connection.until(deadline.at, |state| match state.h2.send_request(request, end) {
                Ok(key) => Some(Ok(key)),
                // The server takes no more calls at the moment.
                Err(NotNow::NoSlot) if state.close_reason.is_none() => None,
                Err(not_now) => Some(Err((not_now, state.close_reason.clone()))),
            });
        let key = match opened {
            Ok(Ok(key)) => key,
            Ok(Err((NotNow::TooLarge { limit }, _))) => {
                let text = format!(
                    "the request's headers are larger than the {limit} bytes that the server takes"
                );
                return Err(Unsent::Failed(Status::resource_exhausted(text)));
            }
            Ok(Err((_, close_reason))) => {
                let close_reason = close_reason.unwrap_or(CloseReason::Closed);
                let error = StreamError::ConnectionEnded { close_reason, unprocessed: true };
                return Err(Unsent::Again(status(error, Some(&connection.address))));
            }
            Err(TimedOut) => return Err(Unsent::Failed(deadline.exceeded())),
        };
        Ok(Self { connection, key, deadline, arrived: VecDeque::new(), over: false })
    }

    /// Sends a part of the request, and waits until the server takes more. Returns whether it does:
    /// a server that has already answered need not read the rest.
    pub(super) fn send(&mut self, mut data: Vec<u8>, end: bool) -> Result<bool, Unsent> {
        let key = self.key;
        let progress = self.connection.lock().h2.send_small(key, &mut data, end);
        if progress == Progress::Closed {
            return Ok(false);
        }
        // The last data may still be in the buffer: reading the response writes the rest of it.
        let sent = self.connection.until(self.deadline.at, |state| {
            (end || !state.h2.is_blocked(key) || state.close_reason.is_some()).then_some(())
        });
        match sent {
            Ok(()) => Ok(true),
            Err(TimedOut) => Err(Unsent::Failed(self.deadline.exceeded())),
        }
    }

    /// Ends the request.
    pub(super) fn finish(&mut self) {
        let mut state = self.connection.lock();
        state.h2.send_data(self.key, Bytes::new(), true);
        self.connection.flush(&mut state);
    }

    /// Waits for the head of the response.
    pub(super) fn head(&mut self) -> Result<Head, Unsent> {
        let key = self.key;
        let head =
            self.connection.until(self.deadline.at, |state| match state.h2.take_response(key) {
                Poll::Ready(Ok(head)) => Some(Ok(head)),
                Poll::Ready(Err(failure)) => Some(Err(state.error(failure))),
                Poll::Pending if state.close_reason.is_some() => Some(Err(gone(state))),
                Poll::Pending => None,
            });
        let (head, body) = match head {
            Ok(Ok(head)) => head,
            Ok(Err(error)) => return Err(self.failed(error)),
            Err(TimedOut) => return Err(Unsent::Failed(self.deadline.exceeded())),
        };
        if let Some(status) = not_grpc(head.status, &head.headers) {
            return Err(Unsent::Failed(status));
        }
        if let Body::Whole(Content { mut pieces, trailers }) = body {
            let mut trailers = trailers.map(Arc::unwrap_or_clone);
            trailers.iter_mut().for_each(normalise);
            while let Some(piece) = pieces.pop() {
                self.arrived.push_back(Next::Data(piece));
            }
            self.arrived.push_back(Next::End(trailers));
            self.forget();
        }
        let status = head.status;
        let mut headers = match Arc::try_unwrap(head) {
            Ok(head) => head.headers,
            Err(head) => head.headers.clone(),
        };
        normalise(&mut headers);
        Ok(Head { status, headers })
    }

    /// Waits for the next part of the response. After the end it returns the end again.
    pub(super) fn next(&mut self) -> Result<Next, Status> {
        if let Some(next) = self.arrived.pop_front() {
            return Ok(next);
        }
        if self.over {
            return Ok(Next::End(None));
        }
        let key = self.key;
        let next = self.connection.until(self.deadline.at, |state| {
            Some(match state.h2.read(key) {
                Read::Data(data) => Ok(Next::Data(data)),
                Read::Trailers(trailers) => Ok(Next::End(Some(Arc::unwrap_or_clone(trailers)))),
                Read::End => Ok(Next::End(None)),
                Read::Failed(failure) => Err(state.error(failure)),
                Read::Pending if state.close_reason.is_none() => return None,
                Read::Pending | Read::Gone => Err(gone(state)),
            })
        });
        match next {
            Ok(Ok(Next::Data(data))) => Ok(Next::Data(data)),
            Ok(Ok(Next::End(mut trailers))) => {
                self.forget();
                trailers.iter_mut().for_each(normalise);
                Ok(Next::End(trailers))
            }
            Ok(Err(error)) => Err(self.failed(error).into()),
            Err(TimedOut) => {
                self.forget();
                Err(self.deadline.exceeded())
            }
        }
    }

    fn failed(&mut self, error: StreamError) -> Unsent {
        self.forget();
        let again = error.may_be_sent_again();
        let status = self.deadline.or(status(error, Some(&self.connection.address)));
        match again && status.code() != Code::DeadlineExceeded {
            true => Unsent::Again(status),
            false => Unsent::Failed(status),
        }
    }

    fn forget(&mut self) {
        if !self.over {
            self.over = true;
            self.connection.forget(self.key);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.forget();
    }
}

fn gone(state: &State) -> StreamError {
    let close_reason = state.close_reason.clone().unwrap_or(CloseReason::Closed);
    StreamError::ConnectionEnded { close_reason, unprocessed: false }
}

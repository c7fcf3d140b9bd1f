//! What a channel tells its observers about attempts to connect ([`Attempted`]), connections
//! ([`WatchedLink`]) and calls ([`WatchedCall`]).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http::uri::PathAndQuery;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};

use super::builder::ChannelBuilder;
use super::call::{Calling, LinkResponse};
use super::link::Link;
use crate::address::Address;
use crate::driver::{CloseReason, OutgoingRequest, Watch};
use crate::http2::ErrorCode;
use crate::observer::{CallObservation, ConnectionInfo, ConnectionWatch, Event, Observers};
use crate::socket::{ConnectError, Peer};

/// An attempt to open a connection.
pub(super) struct Attempted<'a> {
    observers: Option<(&'a Observers, Instant)>,
    address: Option<&'a Address>,
}

impl<'a> Attempted<'a> {
    /// Tells the observers that an attempt begins.
    pub(super) fn began(config: &'a ChannelBuilder, address: Option<&'a Address>) -> Self {
        let observers = config.observers.as_ref().map(|observers| {
            observers.tell(&Event::ConnectBegan { address });
            (observers, Instant::now())
        });
        Self { observers, address }
    }

    /// Tells the observers if the attempt has failed. The connection's task tells of success.
    pub(super) fn ended<T>(self, result: Result<T, ConnectError>) -> Result<T, ConnectError> {
        if let (Some((observers, began)), Err(error)) = (self.observers, &result) {
            let (address, duration) = (self.address, began.elapsed());
            observers.tell(&Event::ConnectFailed { address, error, duration });
        }
        result
    }
}

/// A connection, whose events the connection's task tells.
pub(super) struct WatchedLink(ConnectionWatch);

impl WatchedLink {
    /// Returns the watch over a connection that is being opened, and the connection as observers
    /// see it.
    pub(super) fn opening(
        config: &ChannelBuilder,
        address: Option<&Arc<Address>>,
        peer: &Peer,
    ) -> (Option<Box<dyn Watch>>, Option<Arc<ConnectionInfo>>) {
        match ConnectionWatch::opening(config.observers.as_ref(), address, peer) {
            None => (None, None),
            Some(watch) => {
                let observed = watch.connection();
                (Some(Box::new(Self(watch))), observed)
            }
        }
    }
}

impl Watch for WatchedLink {
    fn ready(&mut self) {
        self.0.opened();
        self.0.span().in_scope(|| tracing::debug!("a connection was opened"));
    }

    fn going_away(&mut self, code: ErrorCode) {
        self.0.span().in_scope(|| tracing::debug!(%code, "the server takes no more calls"));
        self.0.going_away(code);
    }

    fn ended(&mut self, why: &CloseReason) {
        let error = (!matches!(why, CloseReason::Closed)).then(|| why.to_string());
        self.0.span().in_scope(|| tracing::debug!(error, "a connection was closed"));
        self.0.ended(why);
    }
}

/// A call that is observed, until its response's head has come.
#[derive(Debug)]
pub(super) struct WatchedCall {
    observation: Box<CallObservation>,
    /// Since when the call waits for anything but its answer.
    waits_since: Option<Instant>,
}

impl WatchedCall {
    /// Tells the observers that the call begins.
    pub(super) fn began(observers: &Observers, path: &PathAndQuery) -> Self {
        let observation = Box::new(CallObservation::of_channel(observers, path));
        Self { observation, waits_since: None }
    }

    /// Returns the same body, whose bytes are counted.
    pub(super) fn counted(&self, body: Body) -> Body {
        Body::new(Counted { body, sent: self.observation.sent_counter() })
    }

    /// Polls the call within its span, and measures how long it waits.
    pub(super) fn poll<R: OutgoingRequest>(
        &mut self,
        call: &mut Calling<R>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<LinkResponse, Status>> {
        let waited = self.waits_since.take().map(|since| since.elapsed());
        let polled = self.observation.within(|| call.poll_answer(cx));
        let attempts = self.observation.attempts();
        attempts.waited += waited.unwrap_or_default();
        (attempts.retries, attempts.resends) = call.made_again();
        if polled.is_pending() && call.waits() {
            self.waits_since = Some(Instant::now());
        }
        if polled.is_ready() && !call.was_sent() {
            self.observation.sent_nothing();
        }
        polled
    }

    /// Tells the observers that the call ended without a response.
    pub(super) fn failed(mut self, code: Code) {
        self.observation.ended_with(code);
    }

    /// Notes that the call was answered on `link`. Only the response's body is left.
    pub(super) fn answered(mut self, link: &Link, headers: &HeaderMap) -> Box<CallObservation> {
        self.observation.answered(link.observed.clone());
        self.observation.fields(headers);
        self.observation
    }
}

/// A request's body whose bytes are counted.
struct Counted {
    body: Body,
    sent: Arc<AtomicU64>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! [`Watched`]: tells observers of a connection.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{Level, Span};

use crate::address::Address;
use crate::driver::CloseReason;
use crate::http2::ErrorCode;
use crate::observer::{ConnectionInfo, ConnectionObservation, Observers, Side, connection_span};
use crate::socket::Peer;

/// Something that has happened on a connection.
pub(super) enum News {
    /// The server's SETTINGS have come.
    Ready,
    /// The server has sent GOAWAY.
    GoingAway(ErrorCode),
    Ended(CloseReason),
}

/// A connection that is observed. If it is dropped while the connection is open, it tells observers
/// that the connection was closed.
pub(super) struct Watched {
    observers: Option<Observers>,
    /// The connection as observers see it.
    pub(super) connection: Option<Arc<ConnectionInfo>>,
    address: Arc<Address>,
    peer: Peer,
    news: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<News>,
    /// Whether a thread is telling observers. That thread also tells what follows.
    is_telling: bool,
    open: Open,
}

/// A connection from its opening to its end.
#[derive(Default)]
struct Open {
    observation: Option<ConnectionObservation>,
    span: Option<Span>,
}

impl Watched {
    /// Returns `None` if there are no observers, and nothing reads spans.
    pub(super) fn new(
        observers: Option<&Observers>,
        address: &Arc<Address>,
        peer: &Peer,
    ) -> Option<Self> {
        if observers.is_none() && !tracing::enabled!(Level::INFO) {
            return None;
        }
        let info = |observers| ConnectionInfo::new(Side::Client, observers, Some(address), peer);
        Some(Self {
            observers: observers.cloned(),
            connection: observers.map(info),
            address: Arc::clone(address),
            peer: peer.clone(),
            news: Mutex::default(),
        })
    }

    /// Adds news for the observers.
    pub(super) fn add(&self, news: Vec<News>) {
        self.lock().waiting.extend(news);
    }

    /// Tells observers the news in order. If another thread is telling them, or this one within an
    /// observer, that call tells the rest. No lock is held while observers run.
    pub(super) fn tell(&self) {
        let mut queue = self.lock();
        if mem::replace(&mut queue.is_telling, true) {
            return;
        }
        let mut open = mem::take(&mut queue.open);
        while let Some(news) = queue.waiting.pop_front() {
            drop(queue);
            self.tell_one(news, &mut open);
            queue = self.lock();
        }
        queue.open = open;
        queue.is_telling = false;
    }

    fn tell_one(&self, news: News, open: &mut Open) {
        match news {
            News::Ready => {
                open.span = Some(connection_span(Side::Client, Some(&self.address), &self.peer));
                if let (Some(observers), Some(connection)) = (&self.observers, &self.connection) {
                    let connection = Arc::clone(connection);
                    open.observation =
                        Some(ConnectionObservation::opened_as(observers, connection));
                }
            }
            News::GoingAway(code) => {
                if let Some(observation) = &open.observation {
                    observation.go_away_received(&code.to_string());
                }
            }
            News::Ended(why) => {
                let Open { observation, span } = mem::take(open);
                drop(span);
                if let Some(mut observation) = observation
                    && !matches!(why, CloseReason::Closed)
                {
                    observation.failed(&why);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

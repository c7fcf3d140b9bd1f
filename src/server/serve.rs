//! The accept loops of a server, and its drain from the shutdown signal to the end of the last
//! connection.

use std::future::{Future, pending};
use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet, yield_now};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::calls::Calls;
use super::connection::ServedConnection;
use super::error::{ServeError, ServeErrorKind};
use super::gate::{Admission, Gate};
use super::idle::Idleness;
use super::incoming::{Accepted, ConnectionSource};
use super::limits::Permit;
use super::options::ServerConfig;
use super::refusal::refuse;
use crate::address::Address;
use crate::driver::{self, LiveHandlers};
use crate::far::FAR;
use crate::http2::Notice;
use crate::observer::{Event, RefusalReason};
use crate::socket::{ACCEPT_BACKOFF, PeerIdentity};

/// How many connections are accepted before all tasks that are ready have a turn, and the runtime looks at
/// its sockets. Refused clients may connect again at once, and each takes as long as a small call.
const ACCEPTS: u32 = 8;

/// How many connections are accepted after the shutdown signal: as many as can wait in the queue by
/// default. Without this bound, new TCP clients could go on coming.
const QUEUE_MAX: u32 = 4096;

/// How long connections that are cut off may take to close, and handlers that are dropped to end. A handler
/// may block its thread.
const CUT_OFF: Duration = Duration::from_secs(1);

/// The idle timeout of connections that were still in the queue when an idle server ended.
const LAST_IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves all of `incoming` until `shutdown` completes, and then drains them. It also returns after
/// all sources have ended, or the server has been idle, and the last connection has ended.
pub(super) async fn serve<I: ConnectionSource>(
    calls: Calls,
    options: ServerConfig,
    incoming: Vec<I>,
    idle: Option<Duration>,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopped) = watch::channel(false);
    let idleness = idle.map(Idleness::new);
    let gate = Gate::new(options);
    let mut loops = JoinSet::new();
    for incoming in incoming {
        let acceptor = Acceptor {
            calls: calls.clone(),
            gate: Arc::clone(&gate),
            stopped: stopped.clone(),
            idleness: idleness.clone(),
            draining: watch::Sender::new(None),
            live: LiveHandlers::new(),
            connections: JoinSet::new(),
            is_last: false,
        };
        loops.spawn(acceptor.run(incoming));
    }
    let ended = async {
        while let Some(ended) = loops.join_next().await {
            if let Err(Ok(panic)) = ended.map_err(JoinError::try_into_panic) {
                // The stream of connections has panicked, which is the caller's own code.
                resume_unwind(panic);
            }
        }
    };
    tokio::pin!(ended);
    tokio::select! {
        () = &mut ended => return,
        () = shutdown => {}
    }
    stop.send_replace(true);
    ended.await;
}

/// Serves one connection until the client closes it, or tells the client why it is refused.
pub(super) async fn serve_one<T>(
    calls: Calls,
    gate: Arc<Gate>,
    accepted: Accepted<T>,
) -> Result<(), ServeError>
where
    T: driver::Socket + Send + 'static,
{
    let memory = Arc::clone(&gate.memory);
    let (reason, _permit) = match gate.admit(&accepted.peer, None) {
        Admission::Refused(reason, permit) => (reason, permit),
        Admission::Admitted(_permit) => {
            let observers = gate.observers.clone();
            let connection = ServedConnection {
                calls,
                memory,
                observers,
                live: LiveHandlers::new().add(),
                address: None,
                scarce: false,
                idle_timeout: None,
            };
            return match connection.serve(accepted, &gate.options, pending()) {
                Some(served) => served.await.map_err(ServeError::connection),
                None => Err(ServeError::connection("Server::on_connect panicked")),
            };
        }
    };
    refuse(accepted, reason, gate.options.driver, memory, pending::<()>()).await;
    Err(match reason {
        RefusalReason::Policy => ServeError::new(ServeErrorKind::PeerRefused),
        _ => ServeError::connection(format!("the connection was refused: {}", reason.text())),
    })
}

/// Completes when the value is `true`, at once if it is already.
async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    // An error means that the sender was dropped, and with it the server.
    let _ = stopped.wait_for(|stop| *stop).await;
}

struct Acceptor {
    calls: Calls,
    gate: Arc<Gate>,
    stopped: watch::Receiver<bool>,
    /// `Some` if the server ends when it is idle.
    idleness: Option<Idleness>,
    /// Set when the connections drain, after observers were told of it: how much time idle clients have.
    draining: watch::Sender<Option<Notice>>,
    connections: JoinSet<()>,
    live: LiveHandlers,
    /// Whether only the queue is accepted from now on.
    is_last: bool,
}

/// Why an acceptor stops accepting.
enum StopReason {
    Stopped,
    Idle,
    /// A successor accepts from now on, also what is in the queue.
    Successor,
    /// The source has no more connections.
    Ended,
}

impl Acceptor {
    async fn run<I: ConnectionSource>(mut self, mut incoming: I) {
        let reason = self.accept_all(&mut incoming).await;
        let address = incoming.address().cloned();
        match reason {
            StopReason::Ended | StopReason::Successor => {}
            // The connections in the queue wait for the next process that has the socket.
            StopReason::Idle if incoming.is_inherited() => {}
            StopReason::Idle | StopReason::Stopped => {
                incoming.unpublish();
                self.is_last = true;
                self.empty_queue(&mut incoming).await;
            }
        }
        drop(incoming);
        let Self { mut connections, live, mut stopped, gate, draining, .. } = self;
        if !matches!(reason, StopReason::Stopped | StopReason::Successor) {
            tokio::select! {
                () = all_of(&mut connections) => {
                    let _ = timeout(CUT_OFF, live.all_ended()).await;
                    return;
                }
                () = told_to_stop(&mut stopped) => {}
            }
        }
        let began = Instant::now();
        let address = address.as_ref();
        let tell = |event: &Event<'_>| {
            if let Some(observers) = &gate.observers {
                observers.tell(event);
            }
        };
        tell(&Event::DrainBegan { address, connections: connections.len() });
        draining.send_replace(Some(match reason {
            // The successor serves already, so nobody waits.
            StopReason::Successor => Notice::Long,
            _ => Notice::Short,
        }));
        let deadline = began + gate.options.drain_timeout.min(FAR);
        if timeout_at(deadline, all_of(&mut connections)).await.is_err() {
            let connections = connections.len();
            let address = address.map(tracing::field::display);
            tracing::warn!(address, connections, "cut off at the drain deadline");
        }
        let cut_off = connections.len();
        connections.abort_all();
        let ended = async {
            all_of(&mut connections).await;
            live.all_ended().await;
        };
        let _ = timeout(CUT_OFF, ended).await;
        tell(&Event::DrainEnded { address, duration: began.elapsed(), cut_off });
    }

    async fn accept_all<I: ConnectionSource>(&mut self, incoming: &mut I) -> StopReason {
        let mut backoff = ACCEPT_BACKOFF;
        let mut in_a_row = 0;
        loop {
            if in_a_row == ACCEPTS {
                in_a_row = 0;
                // A task of its own, which a connection that ends does not wake.
                let _ = tokio::spawn(yield_now()).await;
            }
            tokio::select! {
                biased;
                () = told_to_stop(&mut self.stopped) => return StopReason::Stopped,
                () = idle(&mut self.idleness) => return StopReason::Idle,
                Some(_) = self.connections.join_next() => {}
                accepted = incoming.accept() => match accepted {
                    None if incoming.is_handed_over() => return StopReason::Successor,
                    None => return StopReason::Ended,
                    Some(Ok(accepted)) => {
                        backoff.reset();
                        self.welcome(accepted, incoming.address()).await;
                        in_a_row += 1;
                    }
                    Some(Err(error)) => {
                        self.gate.log_failure(&error, incoming.address());
                        tokio::select! {
                            () = told_to_stop(&mut self.stopped) => return StopReason::Stopped,
                            () = sleep(backoff.next()) => {}
                        }
                    }
                },
            }
        }
    }

    /// Accepts the connections that wait in the queue of an unpublished socket.
    async fn empty_queue<I: ConnectionSource>(&mut self, incoming: &mut I) {
        for _ in 0..QUEUE_MAX {
            match incoming.accept_queued() {
                Ok(Some(accepted)) => self.welcome(accepted, incoming.address()).await,
                Ok(None) => break,
                Err(error) => {
                    self.gate.log_failure(&error, incoming.address());
                    // A connection that cannot be watched has left the queue (epoll(7)).
                    if error.kind() != io::ErrorKind::StorageFull {
                        break;
                    }
                }
            }
        }
    }

    /// Serves a connection if it is admitted, and refuses it otherwise.
    async fn welcome<T>(&mut self, accepted: Accepted<T>, address: Option<&Address>)
    where
        T: driver::Socket + Send + 'static,
    {
        match self.gate.admit(&accepted.peer, address) {
            Admission::Admitted(permit) => self.spawn(accepted, permit, address),
            Admission::Refused(reason, permit) => self.refuse(accepted, reason, permit).await,
        }
    }

    /// Tells a client that it is refused: by a status for each of its calls, or by a GOAWAY if too
    /// many other connections are being refused.
    async fn refuse<T>(
        &mut self,
        accepted: Accepted<T>,
        reason: RefusalReason,
        permit: Option<Permit>,
    ) where
        T: driver::Socket + Send + 'static,
    {
        let uid = accepted.peer.identity().map(PeerIdentity::uid);
        let Ok(refusal) = self.gate.refusals.permit(uid) else {
            return driver::refuse(accepted.io, reason.text()).await;
        };
        let (driver, memory) = (self.gate.options.driver, Arc::clone(&self.gate.memory));
        let stopped = self.stop_signal();
        self.connections.spawn(async move {
            refuse(accepted, reason, driver, memory, stopped).await;
            drop((permit, refusal));
        });
    }

    fn spawn<T>(&mut self, accepted: Accepted<T>, permit: Permit, address: Option<&Address>)
    where
        T: driver::Socket + Send + 'static,
    {
        let connection = ServedConnection {
            calls: self.calls.clone(),
            memory: Arc::clone(&self.gate.memory),
            observers: self.gate.observers.clone(),
            live: self.live.add(),
            address: address.cloned(),
            scarce: permit.is_scarce(),
            idle_timeout: self.is_last.then_some(LAST_IDLE_TIMEOUT),
        };
        let Some(served) = connection.serve(accepted, &self.gate.options, self.stop_signal())
        else {
            return;
        };
        let open = self.idleness.as_ref().map(Idleness::open);
        self.connections.spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(%error, "a connection failed");
            }
            drop((permit, open));
        });
    }

    fn stop_signal(&self) -> impl Future<Output = Notice> + Send + 'static + use<> {
        let mut draining = self.draining.subscribe();
        async move {
            let notice = draining.wait_for(Option::is_some).await;
            // An error means that the acceptor was dropped.
            notice.ok().and_then(|notice| *notice).unwrap_or_default()
        }
    }
}

async fn all_of(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

/// Completes when the server has been idle long enough. Never completes if there is no such limit.
async fn idle(idleness: &mut Option<Idleness>) {
    match idleness {
        Some(idleness) => idleness.wait().await,
        None => pending().await,
    }
}

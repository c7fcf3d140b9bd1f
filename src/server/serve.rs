//! The accept loops: from listeners to connections, and from the shutdown signal to the end of
//! the last connection.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::driver;
use crate::grpc::{BoxError, Grpc, GrpcService};
use crate::http2::Config;
use crate::socket::{Conn, Listener};

/// The pauses after a failed accept: doubled from the first up to the last, so that a process
/// without file descriptors neither spins nor stops accepting.
const ACCEPT_PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1));

/// How many connections are accepted after the shutdown signal, at most: as many as can wait in the
/// queue by default. New TCP clients could go on coming.
const QUEUE_MAX: u32 = 4096;

/// Serves all listeners until `shutdown` completes and then drains.
pub(super) async fn serve<S, B>(
    service: S,
    config: Config,
    listeners: Vec<Listener>,
    shutdown: impl Future<Output = ()>,
    drain_timeout: Duration,
) where
    S: GrpcService<B>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let (stop, stopped) = watch::channel(false);
    let mut loops = JoinSet::new();
    for listener in listeners {
        let acceptor = Acceptor { service: service.clone(), config, stopped: stopped.clone() };
        loops.spawn(acceptor.run(listener, drain_timeout));
    }
    shutdown.await;
    stop.send_replace(true);
    while loops.join_next().await.is_some() {}
}

/// Waits for the shutdown signal, and knows one that came before.
async fn told_to_stop(stopped: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the server.
    let _ = stopped.wait_for(|stop| *stop).await;
}

struct Acceptor<S> {
    service: S,
    config: Config,
    stopped: watch::Receiver<bool>,
}

impl<S> Acceptor<S> {
    async fn run<B>(mut self, mut listener: Listener, drain_timeout: Duration)
    where
        S: GrpcService<B>,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let mut connections = JoinSet::new();
        let (first_pause, longest_pause) = ACCEPT_PAUSES;
        let mut pause = first_pause;
        loop {
            tokio::select! {
                biased;
                () = told_to_stop(&mut self.stopped) => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok(conn) => {
                        pause = first_pause;
                        self.spawn(&mut connections, conn);
                    }
                    Err(error) => {
                        tracing::warn!(address = %listener.local_addr(), %error, "accept failed");
                        tokio::select! {
                            () = told_to_stop(&mut self.stopped) => break,
                            () = sleep(pause) => pause = (pause * 2).min(longest_pause),
                        }
                    }
                },
            }
        }
        let deadline = Instant::now() + drain_timeout;
        listener.unpublish();
        for _ in 0..QUEUE_MAX {
            match listener.accept_queued() {
                Ok(Some(conn)) => self.spawn(&mut connections, conn),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(address = %listener.local_addr(), %error, "accept failed");
                    break;
                }
            }
        }
        let address = listener.local_addr().clone();
        drop(listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout_at(deadline, drained).await.is_err() {
            let connections = connections.len();
            tracing::warn!(%address, connections, "cut off at the drain deadline");
        }
    }

    fn spawn<B>(&self, connections: &mut JoinSet<()>, conn: Conn)
    where
        S: GrpcService<B>,
        B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let handler = Grpc::new(self.service.clone(), conn.peer().cloned());
        let config = Config { any_authority: conn.is_unix(), ..self.config };
        let mut stopped = self.stopped.clone();
        connections.spawn(async move {
            let stopped = told_to_stop(&mut stopped);
            if let Err(error) = driver::serve(conn, handler, config, stopped).await {
                tracing::debug!(%error, "a connection failed");
            }
        });
    }
}

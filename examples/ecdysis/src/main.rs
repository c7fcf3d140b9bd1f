//! A server that replaces itself. At SIGHUP it starts its program anew, which inherits the listening
//! socket, and drains once the new process is ready. ecdysis binds the socket, so the file's mode and
//! its removal are not samehost's to see to.
//!
//! Usage: samehost-ecdysis PATH

use std::error::Error;

use ecdysis::Ecdysis;
use samehost::ping::{Ping, PingServiceServer};
use samehost::{Listener, Server};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::block_in_place;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: samehost-ecdysis PATH")?;
    let mut ecdysis = Ecdysis::new();
    let listener = Listener::from_std(ecdysis.listen_unix(&path)?)?;
    let server = Server::new().add_service(PingServiceServer::new(Ping::default()));
    let (mut hangup, mut terminate) =
        (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?);
    // The process before this one drains from now on.
    ecdysis.ready()?;
    println!("{} listens", std::process::id());
    let replaced = async {
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = hangup.recv() => match block_in_place(|| ecdysis.upgrade()) {
                    Ok(()) => return,
                    Err(error) => eprintln!("the new process is not ready, serving on: {error}"),
                },
            }
        }
    };
    server.serve_with_shutdown(listener, replaced).await?;
    Ok(())
}

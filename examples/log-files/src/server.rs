//! Opens log files for programs that may not open any: `log-server ADDRESS DIRECTORY [UID]`.
//!
//! The client gets the descriptor of one file, open for appending, and nothing else of the directory.
//! A policy on the method says whose programs may ask: those of `UID`, or of the server's own user.

use std::os::fd::OwnedFd;

use log_files::log_files_server::{LogFiles, LogFilesServer};
use log_files::{OpenRequest, OpenResponse};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use samehost::tonic::{self, Request, Response, Status};
use samehost::{BindOptions, Descriptors, PeerPolicy, PeerPolicyLayer, Server};

mod log_files {
    samehost::include_proto!("log_files.v1");
}

/// The directory of the log files.
struct Directory(OwnedFd);

#[tonic::async_trait]
impl LogFiles for Directory {
    async fn open(&self, request: Request<OpenRequest>) -> Result<Response<OpenResponse>, Status> {
        let name = request.into_inner().name;
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        // No name leads out of the directory, and none through a symbolic link (openat2(2)).
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let file = rustix::fs::openat2(&self.0, &name, flags, mode, within)
            .map_err(|errno| Status::invalid_argument(format!("cannot open {name:?}: {errno}")))?;
        let mut response = Response::new(OpenResponse {});
        response.extensions_mut().insert(Descriptors::from([file]));
        Ok(response)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (address, directory, uid) = match &arguments[..] {
        [address, directory] => (address, directory, None),
        [address, directory, uid] => (address, directory, Some(uid.parse()?)),
        _ => return Err("usage: log-server ADDRESS DIRECTORY [UID]".into()),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = Directory(rustix::fs::open(directory, flags, Mode::empty())?);
    let who = uid.map_or_else(PeerPolicy::same_user, |uid| PeerPolicy::uids([uid]));
    let listener = BindOptions::new().mode(0o666).bind(address.as_str()).await?;
    println!("listening on {}", listener.local_addr());
    Server::new()
        .descriptors(1)
        .layer(PeerPolicyLayer::new().method::<LogFilesServer<Directory>>("Open", who))
        .add_service(LogFilesServer::new(directory))
        .serve_with_shutdown(listener, async { drop(tokio::signal::ctrl_c().await) })
        .await?;
    Ok(())
}

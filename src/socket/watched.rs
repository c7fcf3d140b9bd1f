//! [`WatchedFile`]: a socket file whose removal is noticed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use super::file::{SocketFile, is_named};
use super::location::Location;
use super::unix::by_descriptor;
use crate::runtime::asynchronous;

/// How often the file is checked if the kernel does not report its removal.
const INTERVAL: Duration = Duration::from_secs(5);

/// A socket file to be watched.
#[derive(Debug)]
pub(super) struct WatchedFile {
    location: Arc<Location>,
    inode: Arc<OwnedFd>,
}

impl SocketFile {
    pub(super) fn watched(&self) -> WatchedFile {
        WatchedFile { location: Arc::clone(self.location()), inode: Arc::clone(self.inode()) }
    }
}

impl WatchedFile {
    pub(super) fn location(&self) -> &Location {
        &self.location
    }

    /// Completes once the name no longer leads to the inode. The kernel reports it (inotify(7)):
    /// the number of links is one of the inode's attributes.
    pub(super) async fn gone(&self) {
        let reports = self.reports();
        while self.is_there() {
            match &reports {
                Ok(reports) => wait_for_report(reports).await,
                // There are no free inotify instances, or the file may not be read.
                Err(_) => sleep(INTERVAL).await,
            }
        }
    }

    fn reports(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let reports = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let path = by_descriptor(self.inode.as_fd());
        inotify::add_watch(&reports, path, WatchFlags::ATTRIB | WatchFlags::MOVE_SELF)?;
        asynchronous(reports)
    }

    /// Returns whether the file is there. An error says nothing about the file, so it counts as
    /// there.
    fn is_there(&self) -> bool {
        let name = &self.location.name;
        is_named(&self.location, name, self.inode.as_fd()).unwrap_or(true)
    }
}

/// Waits until something happened to the file. A check then finds out what.
async fn wait_for_report(reports: &AsyncFd<OwnedFd>) {
    let Ok(mut ready) = reports.readable().await else { return sleep(INTERVAL).await };
    let mut events = [0; 4096];
    loop {
        match rustix::io::read(reports, &mut events) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return ready.clear_ready(),
            Err(_) => return sleep(INTERVAL).await,
        }
    }
}

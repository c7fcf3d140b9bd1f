//! [`WatchedFile`]: a socket file whose removal is noticed.

use std::io;
use std::mem::MaybeUninit;
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

/// The kernel's reports about the file and its directory (inotify(7)).
struct Reports {
    inotify: AsyncFd<OwnedFd>,
    /// The number of the watch on the directory. `None` if the directory may not be read.
    directory: Option<i32>,
}

impl WatchedFile {
    pub(super) fn location(&self) -> &Location {
        &self.location
    }

    /// Completes once the path no longer leads to the inode: the file was removed or moved, or its
    /// directory was moved. A directory further up is not watched.
    pub(super) async fn gone(&self) {
        self.gone_by(self.reports()).await;
    }

    async fn gone_by(&self, reports: io::Result<Reports>) {
        while self.is_there() {
            match &reports {
                // The path is only looked at when the directory was moved. The process itself may have
                // changed what its paths mean (chroot(2)).
                Ok(reports) => {
                    if reports.wait().await && !self.location.is_current() {
                        return;
                    }
                }
                // There are no free inotify instances, or the file may not be read.
                Err(_) => {
                    sleep(INTERVAL).await;
                    if self.location.is_moved() && !self.location.is_current() {
                        return;
                    }
                }
            }
        }
    }

    /// Returns whether a file that was gone is back, since its directory was moved back.
    pub(super) fn is_back(&self) -> bool {
        self.location.is_current() && self.is_there()
    }

    /// The number of links is one of the inode's attributes, so its removal is reported.
    fn reports(&self) -> io::Result<Reports> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let path = by_descriptor(self.inode.as_fd());
        inotify::add_watch(&inotify, path, WatchFlags::ATTRIB | WatchFlags::MOVE_SELF)?;
        let path = by_descriptor(self.location.directory.as_fd());
        let directory = inotify::add_watch(&inotify, path, WatchFlags::MOVE_SELF).ok();
        Ok(Reports { inotify: asynchronous(inotify)?, directory })
    }

    /// Returns whether the file is in its directory. An error says nothing about the file, so it
    /// counts as there.
    fn is_there(&self) -> bool {
        let name = &self.location.name;
        is_named(&self.location, name, self.inode.as_fd()).unwrap_or(true)
    }
}

impl Reports {
    /// Waits until something happened to the file or its directory. A check then finds out what.
    /// Returns whether it was the directory.
    async fn wait(&self) -> bool {
        let Ok(mut ready) = self.inotify.readable().await else {
            sleep(INTERVAL).await;
            return false;
        };
        match self.read() {
            Ok(of_directory) => {
                ready.clear_ready();
                of_directory
            }
            Err(_) => {
                sleep(INTERVAL).await;
                false
            }
        }
    }

    /// Reads all reports that have come. Returns whether one is about the directory.
    fn read(&self) -> rustix::io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut of_directory = false;
        loop {
            match reader.next() {
                Ok(report) => of_directory |= Some(report.wd()) == self.directory,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(of_directory),
                Err(errno) => return Err(errno),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, remove_file, rename};
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use super::super::unix::open_inode;
    use super::*;
    use crate::address::Address;

    /// Lets `change` change something in a directory that has a socket, with the socket's directory as its
    /// argument. Returns whether the file then counts as gone, though inotify reports nothing.
    async fn gone_without_inotify_after(change: impl FnOnce(&Path)) -> bool {
        let above = tempfile::tempdir().unwrap();
        let directory = above.path().join("run");
        create_dir(&directory).unwrap();
        let path = directory.join("x");
        let _listener = UnixListener::bind(&path).unwrap();
        let location = Arc::new(Location::open(&Address::unix(&path).unwrap(), &path).unwrap());
        let inode = Arc::new(open_inode(&location.directory, &location.name).unwrap());
        let watched = WatchedFile { location, inode };
        let gone = watched.gone_by(Err(Errno::MFILE.into()));
        tokio::pin!(gone);
        assert!(tokio::time::timeout(3 * INTERVAL, &mut gone).await.is_err(), "it is there");
        change(&directory);
        tokio::time::timeout(3 * INTERVAL, gone).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn what_inotify_cannot_report_is_noticed_in_time() {
        assert!(gone_without_inotify_after(|run| remove_file(run.join("x")).unwrap()).await);
        let moved = |run: &Path| rename(run, run.with_extension("old")).unwrap();
        assert!(gone_without_inotify_after(moved).await);
        let replaced = |run: &Path| {
            moved(run);
            create_dir(run).unwrap();
        };
        assert!(gone_without_inotify_after(replaced).await);
        let linked = |run: &Path| {
            moved(run);
            std::os::unix::fs::symlink(run.with_extension("old"), run).unwrap();
        };
        assert!(!gone_without_inotify_after(linked).await, "its path still leads there");
        assert!(!gone_without_inotify_after(|_| {}).await);
    }
}

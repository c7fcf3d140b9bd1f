//! [`Guard`]: a task that watches over a published socket while its listener is open.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::accept::ListeningSocket;
use super::bind_error::BindError;
use super::file::SocketFile;
use super::location::Location;
use super::lock::Lock;
use super::published::{Published, Settings};

/// How often the socket file is looked at where the kernel does not report its removal, and how long
/// after a failure it is published again.
const INTERVAL: Duration = Duration::from_secs(5);

/// What a listener shares with its guard.
#[derive(Debug)]
pub(super) struct Shared {
    /// What is on disk; `None` where nothing is, or is no longer.
    published: Mutex<Option<Published>>,
    /// What accepts connections.
    sockets: watch::Sender<Sockets>,
}

/// The socket that has the address, and before it one whose file was deleted: clients may wait in
/// its queue.
#[derive(Clone, Debug)]
pub(super) struct Sockets {
    pub(super) current: Arc<ListeningSocket>,
    pub(super) former: Option<Arc<ListeningSocket>>,
}

impl Shared {
    pub(super) fn new(socket: Arc<ListeningSocket>, published: Option<Published>) -> Arc<Self> {
        let sockets = Sockets { current: socket, former: None };
        let sockets = watch::Sender::new(sockets);
        Arc::new(Self { published: Mutex::new(published), sockets })
    }

    pub(super) fn sockets(&self) -> watch::Receiver<Sockets> {
        self.sockets.subscribe()
    }

    /// Removes the files and releases the lock. The sockets go on accepting.
    pub(super) fn unpublish(&self) {
        let published = self.published().take();
        drop(published);
    }

    /// Never held across an `await`.
    fn published(&self) -> MutexGuard<'_, Option<Published>> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task, ended when dropped.
#[derive(Debug)]
pub(super) struct Guard(JoinHandle<()>);

impl Guard {
    /// Watches over what is published.
    pub(super) fn spawn(shared: &Arc<Shared>, settings: Settings) -> Self {
        let shared = Arc::clone(shared);
        Self(tokio::spawn(async move { watch_file(&shared, &settings).await }))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Notices that the socket file was deleted or moved away, and logs it. Publishes the socket again
/// where that was asked for.
async fn watch_file(shared: &Shared, settings: &Settings) {
    loop {
        let watched = shared.published().as_ref().map(|published| published.file.watched());
        let Some(watched) = watched else { return };
        watched.gone().await;
        let address = watched.location().address.clone();
        if !settings.republish {
            tracing::warn!(
                %address,
                "the socket file is gone: no new client can connect; restart this server, or let it \
                 publish its socket again (the option republish)"
            );
            return;
        }
        tracing::warn!(%address, "the socket file is gone: publishing the socket again");
        let mut logged = false;
        while let Err(error) = republish(shared, settings).await {
            if !std::mem::replace(&mut logged, true) {
                tracing::warn!(%error, "the socket cannot be published again yet");
            }
            sleep(INTERVAL).await;
        }
    }
}

/// Publishes a new socket at the same address. Clients that are in the old one's queue are accepted
/// first.
async fn republish(shared: &Shared, settings: &Settings) -> Result<(), BindError> {
    let Some(former) = shared.published().as_ref().map(|published| published.location.clone())
    else {
        return Ok(());
    };
    // The directory may have been deleted and made anew, and the lock file with it.
    let address = &former.address;
    let path = address.as_path().unwrap_or_else(|| OsStr::new("").as_ref());
    let location = Arc::new(Location::open(address, path)?);
    if !settings.allow_shared_directory {
        location.check_directory(settings.group)?;
    }
    let kept = shared.published().as_ref().is_some_and(|now| now.lock.is_of(&location));
    let lock = if kept {
        None
    } else {
        Some(Lock::acquire(&location)?.map_err(|held| held.refusal(&location))?)
    };
    let (file, socket) = Published::socket_file(&location, settings).await?;
    let socket = ListeningSocket::new(socket, true)
        .map_err(|error| BindError::io(address, "register the socket with the runtime", error))?;
    let mut published = shared.published();
    // The listener may have ended meanwhile: then the file goes again.
    if let Some(published) = published.as_mut() {
        published.renew(location, file, lock);
        shared.sockets.send_modify(|sockets| {
            let former = std::mem::replace(&mut sockets.current, Arc::new(socket));
            sockets.former = Some(former);
        });
    }
    Ok(())
}

/// A socket file to be watched.
#[derive(Debug)]
pub(super) struct Watched {
    location: Arc<Location>,
    inode: Arc<OwnedFd>,
}

impl SocketFile {
    fn watched(&self) -> Watched {
        Watched { location: Arc::clone(self.location()), inode: Arc::clone(self.inode()) }
    }
}

impl Watched {
    fn location(&self) -> &Location {
        &self.location
    }

    /// Completes once the name no longer leads to the inode. The kernel reports it (inotify(7)):
    /// a change of the inode's number of links is one of its attributes.
    async fn gone(&self) {
        let reports = self.reports();
        while self.is_there() {
            match &reports {
                Ok(reports) => wait_for_report(reports).await,
                // For want of inotify instances, or of permission to read the file.
                Err(_) => sleep(INTERVAL).await,
            }
        }
    }

    #[allow(deprecated, reason = "its successor is newer than the oldest tokio that is supported")]
    fn reports(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let reports = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let path = super::unix::by_descriptor(self.inode.as_fd());
        inotify::add_watch(&reports, path, WatchFlags::ATTRIB | WatchFlags::MOVE_SELF)?;
        AsyncFd::new(reports)
    }

    /// An error says nothing of the file: it counts as there.
    fn is_there(&self) -> bool {
        let name = &self.location.name;
        super::file::is_named(&self.location, name, self.inode.as_fd()).unwrap_or(true)
    }
}

/// Waits until something happened to the file. What it was is seen by a look.
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

//! The life of a socket file, as seen in its directory.

use std::fs::Permissions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use samehost::{Address, BindError, BindErrorKind, BindOptions, Listener};

use crate::support::{Log, as_user, block_on, directory, eventually_async, names_in, socket_in};

const LOCK: &str = ".ping.sock.lock";

async fn refusal(address: &Address) -> BindError {
    Listener::bind(address).await.unwrap_err()
}

async fn connect(address: &Address) -> std::io::Result<tokio::net::UnixStream> {
    tokio::net::UnixStream::connect(address.as_path().unwrap()).await
}

fn mode_of(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Leaves a socket file that no server listens on, as a killed server does.
fn leave_stale(path: &Path) {
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
}

fn mkfifo(path: &Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(status.success());
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn the_default_mode_is_0600_and_nothing_stays() {
    let directory = directory();
    let address = socket_in(directory.path());
    let listener = Listener::bind(&address).await.unwrap();
    let path = address.as_path().unwrap();
    assert_eq!(mode_of(path), 0o600);
    assert!(std::fs::metadata(path).unwrap().file_type().is_socket());
    assert_eq!(names_in(directory.path()), [LOCK, "ping.sock"]);
    assert_eq!(mode_of(&directory.path().join(LOCK)), 0o600);
    drop(listener);
    assert!(names_in(directory.path()).is_empty());
}

#[tokio::test]
async fn mode_and_group_are_as_asked_whatever_the_umask() {
    let directory = directory();
    let address = socket_in(directory.path());
    for mode in [0o666, 0o660, 0o777, 0o200] {
        let listener = BindOptions::new().mode(mode).bind(&address).await.unwrap();
        assert_eq!(mode_of(address.as_path().unwrap()), mode);
        drop(listener);
    }
    let own = rustix::process::getegid().as_raw();
    let group = if is_root() { 12_345 } else { own };
    let _listener = BindOptions::new().group(group).bind(&address).await.unwrap();
    assert_eq!(std::fs::metadata(address.as_path().unwrap()).unwrap().gid(), group);
}

#[tokio::test]
async fn wrong_modes_and_groups_are_refused() {
    let directory = directory();
    let address = socket_in(directory.path());
    let error = BindOptions::new().mode(0o1777).bind(&address).await.unwrap_err();
    assert_eq!(error.kind(), BindErrorKind::InvalidMode);
    assert!(error.to_string().contains("mode 1777"), "{error}");
    let error = BindOptions::new().group("no-such-group").bind(&address).await.unwrap_err();
    assert!(error.to_string().contains("no group \"no-such-group\""), "{error}");
    let error = BindOptions::new().group(u32::MAX).bind(&address).await.unwrap_err();
    assert_eq!(error.kind(), BindErrorKind::NoSuchGroup, "{error}");
    assert!(names_in(directory.path()).is_empty());
}

#[tokio::test]
async fn what_is_no_socket_is_refused_and_left_as_it_was() {
    let directory = directory();
    let path = directory.path().join("ping.sock");
    let address = Address::unix(&path).unwrap();
    let clear = || {
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_dir(&path);
    };
    let live = directory.path().join("live");
    let _live = std::os::unix::net::UnixListener::bind(&live).unwrap();

    let make: [(fn(&Path), _); 5] = [
        (|path| std::fs::write(path, "kept").unwrap(), "a regular file"),
        (|path| std::fs::create_dir(path).unwrap(), "a directory"),
        (mkfifo, "a FIFO"),
        (|path| symlink("nowhere", path).unwrap(), "a symbolic link"),
        (|path| symlink(path.with_file_name("live"), path).unwrap(), "a symbolic link"),
    ];
    for (make, kind) in make {
        make(&path);
        let before = std::fs::symlink_metadata(&path).unwrap();
        let error = refusal(&address).await;
        assert!(error.to_string().contains(kind), "{kind}: {error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        let after = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()), "{kind}");
        assert_eq!(before.modified().unwrap(), after.modified().unwrap(), "{kind}");
        clear();
    }
    assert_eq!(names_in(directory.path()), ["live"]);
}

#[tokio::test]
async fn a_live_socket_is_refused_and_goes_on() {
    let directory = directory();
    let address = socket_in(directory.path());
    let listener = Listener::bind(&address).await.unwrap();
    let error = refusal(&address).await;
    assert_eq!(error.kind(), BindErrorKind::AlreadyServed, "{error}");
    assert!(error.to_string().contains("is already being served"), "{error}");
    let (connected, _) = tokio::join!(connect(&address), listener.accept());
    connected.unwrap();
}

#[tokio::test]
async fn another_programs_live_socket_is_refused() {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let other = std::os::unix::net::UnixListener::bind(path).unwrap();
    assert_eq!(refusal(&address).await.kind(), BindErrorKind::AlreadyServed);
    drop(other);
    std::fs::remove_file(path).unwrap();

    let _datagram = std::os::unix::net::UnixDatagram::bind(path).unwrap();
    assert_eq!(refusal(&address).await.kind(), BindErrorKind::AlreadyServed);
    assert_eq!(names_in(directory.path()), ["ping.sock"]);
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let directory = directory();
    let address = socket_in(directory.path());
    leave_stale(address.as_path().unwrap());
    let listener = Listener::bind(&address).await.unwrap();
    assert_eq!(names_in(directory.path()), [LOCK, "ping.sock"]);
    let (connected, _) = tokio::join!(connect(&address), listener.accept());
    connected.unwrap();
}

#[tokio::test]
async fn sockets_left_under_temporary_names_are_swept() {
    let directory = directory();
    let address = socket_in(directory.path());
    leave_stale(&directory.path().join(".ping.sock.0123abcd"));
    for kept in [".ping.sock.0123abc", ".ping.sock.0123abcx", ".ping.sockx.0123abcd"] {
        leave_stale(&directory.path().join(kept));
    }
    std::fs::write(directory.path().join(".ping.sock.00000000"), "no socket").unwrap();
    let live = directory.path().join(".ping.sock.11111111");
    let _live = std::os::unix::net::UnixListener::bind(&live).unwrap();
    let _listener = Listener::bind(&address).await.unwrap();
    assert_eq!(
        names_in(directory.path()),
        [
            ".ping.sock.00000000",
            ".ping.sock.0123abc",
            ".ping.sock.0123abcx",
            ".ping.sock.11111111",
            LOCK,
            ".ping.sockx.0123abcd",
            "ping.sock"
        ]
    );
}

#[tokio::test]
async fn a_file_that_has_taken_the_place_is_not_removed() {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let listener = Listener::bind(&address).await.unwrap();
    std::fs::remove_file(path).unwrap();
    leave_stale(path);
    drop(listener);
    assert!(path.exists());

    std::fs::remove_file(path).unwrap();
    let listener = Listener::bind(&address).await.unwrap();
    std::fs::remove_file(path).unwrap();
    drop(listener);
    assert!(names_in(directory.path()).is_empty());
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let directory = directory();
    let missing = directory.path().join("missing");
    let error = refusal(&Address::unix(missing.join("x")).unwrap()).await;
    assert_eq!(error.kind(), BindErrorKind::NoDirectory, "{error}");
    assert!(error.to_string().contains(missing.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn a_directory_that_was_removed_and_is_still_open_is_named() {
    let directory = directory();
    let removed = directory.path().join("removed");
    std::fs::create_dir(&removed).unwrap();
    let open = std::fs::File::open(&removed).unwrap();
    std::fs::remove_dir(&removed).unwrap();
    // As a working directory does, this leads to it without a name.
    let path = format!("/proc/self/fd/{}", open.as_raw_fd());
    let error = refusal(&Address::unix(format!("{path}/x")).unwrap()).await;
    assert_eq!(error.kind(), BindErrorKind::NoDirectory, "{error}");
    assert!(error.to_string().contains(&format!("{path} was removed: create it again")), "{error}");
}

#[tokio::test]
async fn what_is_wrong_with_a_path_is_named() {
    let directory = directory();
    std::fs::write(directory.path().join("file"), "").unwrap();
    symlink("loop", directory.path().join("loop")).unwrap();
    let long = "n".repeat(256);
    for (path, errno) in [
        ("file/x", Errno::NOTDIR),
        ("file/y/x", Errno::NOTDIR),
        ("loop/x", Errno::LOOP),
        (&long, Errno::NAMETOOLONG),
        (&format!("{long}/x"), Errno::NAMETOOLONG),
    ] {
        let path = directory.path().join(path);
        let error = refusal(&Address::unix(&path).unwrap()).await;
        assert_eq!(error.kind(), BindErrorKind::InvalidPath, "{error}");
        let text = error.to_string();
        assert!(text.contains(directory.path().to_str().unwrap()), "{text}");
        assert!(text.contains("; choose another path") || text.contains("shorter path"), "{text}");
        assert_eq!(error.io_error().and_then(Errno::from_io_error), Some(errno), "{error}");
    }
    assert_eq!(names_in(directory.path()), ["file", "loop"]);
}

#[tokio::test]
async fn a_path_must_end_in_a_file_name() {
    let directory = directory();
    for end in ["x/", "x/.", "..", "."] {
        let path = format!("{}/{end}", directory.path().display());
        let error = refusal(&Address::unix(&path).unwrap()).await;
        assert_eq!(error.kind(), BindErrorKind::NoFileName, "{path}: {error}");
    }
    assert!(names_in(directory.path()).is_empty());
}

#[tokio::test]
async fn a_directory_that_others_can_write_to_is_refused_unless_allowed() {
    let parent = directory();
    let shared = parent.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let address = socket_in(&shared);
    for (mode, remedy) in [(0o777, "chmod o-w"), (0o707, "chmod o-w")] {
        std::fs::set_permissions(&shared, Permissions::from_mode(mode)).unwrap();
        let error = refusal(&address).await;
        assert_eq!(error.kind(), BindErrorKind::SharedDirectory, "{error}");
        assert!(error.to_string().contains("set BindOptions::allow_shared_directory"), "{error}");
        assert!(error.to_string().contains(remedy), "{error}");
        assert!(names_in(&shared).is_empty());
        drop(BindOptions::new().allow_shared_directory(true).bind(&address).await.unwrap());
    }
    // The group of the process, which is also the socket's, may write; /tmp's sticky bit protects
    // the file.
    for mode in [0o770, 0o1777] {
        std::fs::set_permissions(&shared, Permissions::from_mode(mode)).unwrap();
        drop(Listener::bind(&address).await.unwrap());
    }
}

#[tokio::test]
async fn a_foreign_directory_or_group_is_refused() {
    if !is_root() {
        eprintln!("left out: giving files away takes root");
        return;
    }
    let parent = directory();
    let foreign = parent.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    let address = socket_in(&foreign);
    std::os::unix::fs::chown(&foreign, Some(12_345), None).unwrap();
    let error = refusal(&address).await;
    assert_eq!(error.kind(), BindErrorKind::ForeignDirectory);
    assert!(error.to_string().contains("owned by uid 12345"), "{error}");
    drop(BindOptions::new().allow_shared_directory(true).bind(&address).await.unwrap());

    std::os::unix::fs::chown(&foreign, Some(0), Some(12_345)).unwrap();
    std::fs::set_permissions(&foreign, Permissions::from_mode(0o770)).unwrap();
    let error = refusal(&address).await;
    assert!(error.to_string().contains("chmod go-w"), "{error}");
    drop(BindOptions::new().group(12_345).bind(&address).await.unwrap());
}

#[test]
fn a_socket_that_another_user_left_in_a_shared_directory_is_named() {
    let directory = directory();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o1777)).unwrap();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let owner = rustix::process::geteuid().as_raw();
    for (mode, step) in [(0o600, "connect to"), (0o666, "replace")] {
        leave_stale(path);
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let bind = || block_on(Listener::bind(&address)).map(drop);
        let Some(bound) = as_user(1234, 1234, &[], bind) else { return };
        let error = bound.unwrap_err();
        assert_eq!(error.kind(), BindErrorKind::PermissionDenied, "{error}");
        let why = format!("is a socket of uid {owner} that this process may not {step} (");
        assert!(error.to_string().contains(&why), "{error}");
        assert!(error.to_string().ends_with("choose another path, or have it removed"), "{error}");
        assert_eq!(names_in(directory.path()), ["ping.sock"]);
        std::fs::remove_file(path).unwrap();
    }
}

#[tokio::test]
async fn what_stands_in_the_locks_place_is_refused() {
    let directory = directory();
    let address = socket_in(directory.path());
    let lock = directory.path().join(LOCK);
    symlink("elsewhere", &lock).unwrap();
    let error = refusal(&address).await.to_string();
    assert!(error.contains("is a symbolic link"), "{error}");
    assert_eq!(names_in(directory.path()), [LOCK]);

    std::fs::remove_file(&lock).unwrap();
    std::fs::create_dir(&lock).unwrap();
    let error = refusal(&address).await.to_string();
    assert!(error.contains("is a directory"), "{error}");
    std::fs::remove_dir(&lock).unwrap();

    leave_stale(&lock);
    let error = refusal(&address).await.to_string();
    assert!(error.contains("is a socket"), "{error}");
    std::fs::remove_file(&lock).unwrap();

    for contents in ["precious\n", "12345678901234567890", "1\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n2"] {
        std::fs::write(&lock, contents).unwrap();
        std::fs::set_permissions(&lock, Permissions::from_mode(0o400)).unwrap();
        let error = refusal(&address).await;
        assert_eq!((error.kind(), mode_of(&lock)), (BindErrorKind::LockFile, 0o400));
        std::fs::set_permissions(&lock, Permissions::from_mode(0o600)).unwrap();
        let error = refusal(&address).await;
        assert_eq!(error.kind(), BindErrorKind::LockFile);
        let text = error.to_string();
        assert!(text.contains(lock.to_str().unwrap()) && text.contains("process id"), "{text}");
        assert_eq!(std::fs::read_to_string(&lock).unwrap(), contents);
        std::fs::remove_file(&lock).unwrap();
    }
    let link = directory.path().join("link");
    std::fs::write(&lock, "1\n").unwrap();
    std::fs::hard_link(&lock, &link).unwrap();
    // A killed server leaves its process id. Another user may have made a link to the file.
    drop(Listener::bind(&address).await.unwrap());
    assert_eq!(names_in(directory.path()), ["link"]);
    std::fs::remove_file(&link).unwrap();

    if is_root() {
        std::fs::write(&lock, "").unwrap();
        std::os::unix::fs::chown(&lock, Some(12_345), None).unwrap();
        let error = refusal(&address).await.to_string();
        assert!(error.contains("is owned by uid 12345"), "{error}");
    }
}

#[test]
fn of_twenty_binders_at_once_exactly_one_succeeds() {
    for stale in [false, true] {
        let directory = directory();
        let address = socket_in(directory.path());
        if stale {
            leave_stale(address.as_path().unwrap());
        }
        let start = std::sync::Barrier::new(20);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let binders: Vec<_> = (0..20)
                .map(|_| {
                    scope.spawn(|| {
                        let runtime =
                            tokio::runtime::Builder::new_current_thread().enable_all().build();
                        let runtime = runtime.unwrap();
                        start.wait();
                        let bound = runtime.block_on(Listener::bind(&address));
                        // A winner keeps the socket until all have tried.
                        (bound, runtime)
                    })
                })
                .collect();
            binders.into_iter().map(|binder| binder.join().unwrap()).collect()
        });
        let (bound, refused): (Vec<_>, Vec<_>) =
            outcomes.iter().partition(|(bound, _)| bound.is_ok());
        assert_eq!(bound.len(), 1);
        for (refusal, _) in refused {
            let refusal = refusal.as_ref().unwrap_err();
            assert_eq!(refusal.kind(), BindErrorKind::AlreadyServed, "{refusal}");
        }
        assert_eq!(names_in(directory.path()), [LOCK, "ping.sock"]);
    }
}

/// Binds so many times, and then on for up to a minute until `enough` returns true.
fn bind_until(
    times: usize,
    enough: impl Fn() -> bool,
    mut bind: impl FnMut() -> Result<(), BindError>,
) -> Result<(), BindError> {
    let started = Instant::now();
    let mut bound = 0;
    while bound < times || !enough() && started.elapsed() < Duration::from_secs(60) {
        bind()?;
        bound += 1;
    }
    Ok(())
}

#[test]
fn the_published_name_never_has_another_mode() {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap().to_owned();
    let (done, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if let Ok(found) = std::fs::symlink_metadata(&path) {
                    assert_eq!(found.mode() & 0o7777, 0o640);
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = BindOptions::new().mode(0o640);
        // Threads that share a CPU may not have had it for as long as the first ones take.
        let bound = bind_until(
            500,
            || seen.load(Ordering::Relaxed) > 0,
            || runtime.block_on(options.bind(&address)).map(drop),
        );
        // This comes before anything that can panic, so that the watcher ends.
        done.store(true, Ordering::Relaxed);
        bound.unwrap();
        assert!(seen.load(Ordering::Relaxed) > 0, "the watcher never saw the file");
    });
}

/// The umask belongs to the whole process: other threads that create files meanwhile must not
/// notice.
#[test]
fn other_threads_create_files_with_their_own_modes_while_a_socket_is_bound() {
    fn umask() -> String {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        status.lines().find(|line| line.starts_with("Umask:")).unwrap().to_owned()
    }
    let before = umask();
    let mask = u32::from_str_radix(before.trim_start_matches("Umask:").trim(), 8).unwrap();
    let directory = directory();
    let address = socket_in(directory.path());
    let done = AtomicBool::new(false);
    let created: [AtomicUsize; 16] = Default::default();
    let all_have = || created.iter().all(|created| created.load(Ordering::Relaxed) > 0);
    std::thread::scope(|scope| {
        let creators: Vec<_> = created
            .iter()
            .enumerate()
            .map(|(thread, created)| {
                let (directory, done) = (directory.path(), &done);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let path = directory.join(format!("{thread}"));
                        let file = std::fs::OpenOptions::new()
                            .write(true)
                            .create_new(true)
                            .mode(0o666)
                            .open(&path)
                            .unwrap();
                        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o666 & !mask);
                        std::fs::remove_file(&path).unwrap();
                        created.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bound = bind_until(200, all_have, || {
            let listener = runtime.block_on(Listener::bind(&address))?;
            assert_eq!(mode_of(address.as_path().unwrap()), 0o600);
            drop(listener);
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        bound.unwrap();
        creators.into_iter().for_each(|creator| creator.join().unwrap());
        assert!(all_have(), "a thread created no file");
    });
    assert_eq!(umask(), before);
}

#[tokio::test]
async fn tcp_beyond_loopback_is_refused_unless_allowed() {
    let address: Address = "0.0.0.0:0".parse().unwrap();
    let error = refusal(&address).await;
    assert_eq!(error.kind(), BindErrorKind::NotLoopback, "{error}");
    assert!(error.to_string().ends_with("or set BindOptions::allow_remote"), "{error}");
    drop(BindOptions::new().allow_remote(true).bind(&address).await.unwrap());
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = Listener::bind("127.0.0.1:0").await.unwrap();
    let error = refusal(taken.local_addr()).await;
    assert_eq!(error.kind(), BindErrorKind::PortInUse, "{error}");
    assert!(error.to_string().contains(&taken.local_addr().to_string()), "{error}");
}

/// Each of fifty servers starts and stops repeatedly.
#[test]
fn of_fifty_servers_that_start_and_stop_no_two_serve_at_a_time() {
    const ROUNDS: usize = 20;
    let directory = directory();
    let address = socket_in(directory.path());
    let (serving, served) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                for _ in 0..ROUNDS {
                    match runtime.block_on(Listener::bind(&address)) {
                        Ok(listener) => {
                            assert_eq!(serving.fetch_add(1, Ordering::SeqCst), 0);
                            served.fetch_add(1, Ordering::SeqCst);
                            let path = address.as_path().unwrap();
                            std::os::unix::net::UnixStream::connect(path).unwrap();
                            serving.fetch_sub(1, Ordering::SeqCst);
                            drop(listener);
                        }
                        Err(error) => {
                            assert_eq!(error.kind(), BindErrorKind::AlreadyServed, "{error}");
                        }
                    }
                }
            });
        }
    });
    assert!(served.load(Ordering::SeqCst) > 0);
    assert!(names_in(directory.path()).is_empty());
}

#[tokio::test]
async fn a_successor_of_a_server_whose_file_was_deleted_is_told_so_and_the_server_logs_it_once() {
    let directory = directory();
    let address = socket_in(directory.path());
    let (log, _subscriber) = Log::start();
    let _listener = Listener::bind(&address).await.unwrap();
    std::fs::remove_file(address.as_path().unwrap()).unwrap();
    let error = refusal(&address).await;
    assert_eq!(error.kind(), BindErrorKind::SocketFileGone, "{error}");
    let says = format!(
        "{address}: pid {} holds the lock but its socket file is gone: stop it",
        std::process::id()
    );
    assert!(error.to_string().starts_with(&says), "{error}");
    eventually_async("it is logged", || !log.lines("the socket file is gone").is_empty()).await;
    // Another file in its place makes no difference.
    std::fs::write(address.as_path().unwrap(), "").unwrap();
    std::fs::remove_file(address.as_path().unwrap()).unwrap();
    tokio::task::yield_now().await;
    assert_eq!(log.lines("the socket file is gone").len(), 1);
}

#[tokio::test]
async fn a_deleted_socket_is_published_again_where_that_was_asked_for() {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let listener = BindOptions::new().mode(0o660).republish(true).bind(&address).await.unwrap();
    // The file is deleted, moved away, and deleted with the lock file, as if the directory was
    // emptied.
    for round in 0..3 {
        let queued = std::os::unix::net::UnixStream::connect(path).unwrap();
        match round {
            0 => std::fs::remove_file(path).unwrap(),
            1 => std::fs::rename(path, directory.path().join("moved")).unwrap(),
            _ => {
                std::fs::remove_file(directory.path().join(LOCK)).unwrap();
                std::fs::remove_file(path).unwrap();
            }
        }
        eventually_async("the socket is back", || path.exists()).await;
        assert_eq!(mode_of(path), 0o660);
        let client = connect(&address);
        let both = async { (listener.accept().await.unwrap(), listener.accept().await.unwrap()) };
        let (connected, _) = tokio::join!(client, both);
        connected.unwrap();
        assert_eq!(refusal(&address).await.kind(), BindErrorKind::AlreadyServed);
        drop(queued);
    }
    drop(listener);
    assert_eq!(names_in(directory.path()), ["moved"]);
}

/// A bind mount of the file into a container is such a name, too.
#[tokio::test]
async fn another_name_of_a_socket_that_was_published_again_still_leads_to_its_server() {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let listener = BindOptions::new().republish(true).bind(&address).await.unwrap();
    let another = directory.path().join("another");
    std::fs::hard_link(path, &another).unwrap();
    std::fs::remove_file(path).unwrap();
    eventually_async("the socket is back", || path.exists()).await;
    let by_another = Address::unix(&another).unwrap();
    for address in [&by_another, &address, &by_another] {
        let accept = tokio::time::timeout(Duration::from_secs(20), listener.accept());
        // The listener waits already when the client connects.
        let (accepted, client) = tokio::join!(accept, connect(address));
        client.unwrap();
        accepted.expect("it is accepted without another client").unwrap();
    }
}

/// A working directory is the whole process's, so the test runs itself as another one.
#[tokio::test]
async fn a_relative_path_stays_that_of_the_directory_in_which_it_was_bound() {
    const CHILD: &str = "SAMEHOST_TEST_IN_DIRECTORY";
    let Some(base) = std::env::var_os(CHILD).map(PathBuf::from) else {
        let directory = directory();
        let name = "a_relative_path_stays_that_of_the_directory_in_which_it_was_bound";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", &format!("socket_file::{name}"), "--nocapture"]);
        let ran = child.env(CHILD, directory.path()).output().unwrap();
        let output = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && output.contains("1 passed"), "{ran:?}");
        return;
    };
    let (bound, other) = (base.join("bound"), base.join("other"));
    for directory in [&bound, &other] {
        std::fs::create_dir(directory).unwrap();
    }
    std::env::set_current_dir(&bound).unwrap();
    let listener = BindOptions::new().republish(true).bind("unix:app.sock").await.unwrap();
    std::env::set_current_dir(&other).unwrap();
    std::fs::remove_file(bound.join("app.sock")).unwrap();
    let anywhere = || bound.join("app.sock").exists() || other.join("app.sock").exists();
    eventually_async("the socket is back", anywhere).await;
    assert!(names_in(&other).is_empty(), "{:?}", names_in(&other));
    assert_eq!(names_in(&bound), [".app.sock.lock", "app.sock"]);
    drop(listener);
    assert!(names_in(&bound).is_empty());
}

/// Returns the address of a socket in a directory of its own, and that directory.
fn in_movable(directory: &Path) -> (Address, PathBuf) {
    let movable = directory.join("movable");
    std::fs::create_dir(&movable).unwrap();
    (socket_in(&movable), movable)
}

#[tokio::test]
async fn a_socket_whose_directory_was_moved_is_published_again_in_the_new_one() {
    let directory = directory();
    let (address, movable) = in_movable(directory.path());
    let path = address.as_path().unwrap();
    let listener = BindOptions::new().republish(true).bind(&address).await.unwrap();
    // The listener's task begins to watch.
    tokio::task::yield_now().await;
    let moved = directory.path().join("moved");
    std::fs::rename(&movable, &moved).unwrap();
    std::fs::create_dir(&movable).unwrap();
    eventually_async("the socket is back", || path.exists()).await;
    let (connected, accepted) = tokio::join!(connect(&address), listener.accept());
    connected.unwrap();
    accepted.unwrap();
    eventually_async("the old one is removed", || names_in(&moved).is_empty()).await;
    drop(listener);
    assert!(names_in(&movable).is_empty());
}

#[tokio::test]
async fn a_socket_whose_directory_was_moved_is_logged() {
    let directory = directory();
    let (address, movable) = in_movable(directory.path());
    let (log, _subscriber) = Log::start();
    let _listener = Listener::bind(&address).await.unwrap();
    tokio::task::yield_now().await;
    std::fs::rename(&movable, directory.path().join("moved")).unwrap();
    eventually_async("it is logged", || !log.lines("the socket file is gone").is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_socket_whose_directory_was_moved_back_stays() {
    let directory = directory();
    let (address, movable) = in_movable(directory.path());
    let path = address.as_path().unwrap();
    let inode = || std::fs::symlink_metadata(path).unwrap().ino();
    let (log, _subscriber) = Log::start();
    let _listener = BindOptions::new().republish(true).bind(&address).await.unwrap();
    tokio::task::yield_now().await;
    let before = inode();
    let moved = directory.path().join("moved");
    for times in 1..=2 {
        std::fs::rename(&movable, &moved).unwrap();
        eventually_async("it is logged", || log.lines("cannot be published").len() == times).await;
        std::fs::rename(&moved, &movable).unwrap();
        // It finds the file after its next pause, and watches again.
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(inode(), before);
    }
}

//! Take-overs within one process: hostile peers of the control socket, and the parts of a listener.
//! The tests with two processes are among the command's.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, recvmsg, sendmsg, socket_with,
};
use samehost::{Address, BindErrorKind, BindOptions, Listener, ListenerParts};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::support::{
    Scripted, as_user, block_on, directory, eventually_async, names_in, socket_in, without_chown,
};
use crate::wire::{Peer, data, headers, message, request};

const PING: &str = "/ping.v1.PingService/Ping";

const MAGIC: &[u8] = b"samehost-handov1";

fn permitting() -> BindOptions {
    BindOptions::new().allow_take_over(true)
}

async fn take_over(address: &Address) -> Result<Listener, samehost::BindError> {
    BindOptions::new().take_over(true).allow_take_over(true).bind(address).await
}

/// Returns a blocking socket of type SOCK_SEQPACKET.
fn packets() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

fn control(directory: &Path) -> std::path::PathBuf {
    directory.join(".ping.sock.control")
}

fn connect(directory: &Path) -> Result<OwnedFd, Errno> {
    let socket = packets();
    rustix::net::connect(&socket, &SocketAddrUnix::new(control(directory)).unwrap())?;
    Ok(socket)
}

fn send(socket: &OwnedFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::empty()).unwrap();
}

/// Returns the server's answer, which is empty at the end of the connection. Its descriptors are
/// closed.
async fn answer(socket: OwnedFd) -> Vec<u8> {
    let received = tokio::task::spawn_blocking(move || {
        let mut bytes = [0; 64];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let slices = &mut [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&socket, slices, &mut ancillary, RecvFlags::empty());
        // A reset counts as an end: the server has not read what was sent.
        received.map_or(Vec::new(), |received| bytes[..received.bytes].to_vec())
    });
    received.await.unwrap()
}

#[tokio::test]
async fn a_successor_in_the_same_process_takes_over_and_the_other_listener_accepts_no_more() {
    let directory = directory();
    let address = socket_in(directory.path());
    let former = permitting().bind(&address).await.unwrap();
    let path = address.as_path().unwrap();
    let _queued = std::os::unix::net::UnixStream::connect(path).unwrap();
    let listener = take_over(&address).await.unwrap();
    former.handed_over().await;
    let error = former.accept().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotConnected);
    listener.accept().await.unwrap();
    drop(former);
    assert_eq!(names_in(directory.path()), [".ping.sock.control", ".ping.sock.lock", "ping.sock"]);
    drop(listener);
    assert!(names_in(directory.path()).is_empty());
}

#[tokio::test]
async fn several_addresses_are_taken_over_together_or_not_at_all() {
    let directory = directory();
    let at = |name: &str| Address::unix(directory.path().join(name)).unwrap();
    let successor = BindOptions::new().take_over(true).allow_take_over(true);
    let former = permitting().bind_all([at("a"), at("b")]).await.unwrap();
    let _permits_none = Listener::bind(at("c")).await.unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    for (other, kind) in [
        (at("c"), BindErrorKind::AlreadyServed),
        (at("file"), BindErrorKind::NotASocket),
        (at("none/x"), BindErrorKind::NoDirectory),
    ] {
        for addresses in [[at("a"), other.clone()], [other.clone(), at("a")]] {
            let error = successor.bind_all(addresses).await.unwrap_err();
            assert_eq!((error.kind(), error.address()), (kind, Some(&other)), "{error}");
            let _client = std::os::unix::net::UnixStream::connect(at("a").as_path().unwrap());
            former[0].accept().await.unwrap();
        }
    }
    let both = successor.bind_all([at("b"), at("new"), at("a")]).await.unwrap();
    assert!(both.iter().map(Listener::local_addr).eq([&at("b"), &at("new"), &at("a")]));
    for listener in &former {
        listener.handed_over().await;
    }
    assert!(successor.bind_all(Vec::<Address>::new()).await.unwrap().is_empty());
}

/// Root is no exception: it may lack the capability CAP_CHOWN.
/// It may be sending its next request: the successor serves already, so nobody waits.
#[tokio::test]
async fn an_idle_client_has_time_to_see_that_a_successor_serves() {
    let directory = directory();
    let address = socket_in(directory.path());
    let listener = permitting().bind(&address).await.unwrap();
    let serving = tokio::spawn(Scripted::default().server().serve(listener));
    let stream = UnixStream::connect(address.as_path().unwrap()).await.unwrap();
    let mut client = Peer::client(stream, &[]).await;
    let _successor = take_over(&address).await.unwrap();
    // It gets no CPU time meanwhile, or has no thread that reads between its calls.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let call = [headers(1, &request(PING), false), data(1, &message(b""), true)].concat();
    client.send(&call).await;
    client.until(|frame| frame.stream == 1 && frame.ends_stream()).await;
    drop(client);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_successor_that_may_not_give_the_file_its_group_changes_nothing() {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let former = permitting().bind(&address).await.unwrap();
    let files = names_in(directory.path());
    let before = std::fs::metadata(path).unwrap();
    let successor = BindOptions::new().take_over(true).mode(0o660).group(54_321);
    let at = address.clone();
    let taken = tokio::task::spawn_blocking(move || {
        without_chown(|| block_on(successor.bind(&at)).map(drop))
    });
    let error = taken.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), BindErrorKind::GroupRefused, "{error}");
    assert_eq!(names_in(directory.path()), files);
    let after = std::fs::metadata(path).unwrap();
    assert_eq!(
        (after.ino(), after.mode(), after.gid()),
        (before.ino(), before.mode(), before.gid())
    );
    let _client = std::os::unix::net::UnixStream::connect(path).unwrap();
    former.accept().await.unwrap();
}

/// A successor comes while a server ends: its control socket is gone, or does not answer, and its
/// lock is still held.
#[tokio::test]
async fn a_server_that_is_ending_is_waited_for() {
    let directory = directory();
    let address = socket_in(directory.path());
    for is_left in [false, true] {
        if is_left {
            let at = SocketAddrUnix::new(control(directory.path())).unwrap();
            rustix::net::bind(packets(), &at).unwrap();
        }
        let ending = Listener::bind(&address).await.unwrap();
        let mut binding = pin!(take_over(&address));
        tokio::select! {
            biased;
            bound = &mut binding => panic!("{bound:?}"),
            () = std::future::ready(()) => {}
        }
        drop(ending);
        drop(binding.await.unwrap());
    }
    assert!(names_in(directory.path()).is_empty());
}

#[tokio::test]
async fn a_server_that_permits_no_take_over_is_told_as_such() {
    let directory = directory();
    let address = socket_in(directory.path());
    let _listener = Listener::bind(&address).await.unwrap();
    for is_left in [false, true] {
        if is_left {
            let at = SocketAddrUnix::new(control(directory.path())).unwrap();
            rustix::net::bind(packets(), &at).unwrap();
        }
        let error = take_over(&address).await.unwrap_err();
        assert!(error.to_string().contains("permits no take-over"), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_was_removed_beside_a_server_is_named_to_its_successor() {
    for suffix in ["control", "lock"] {
        let directory = directory();
        let address = socket_in(directory.path());
        let _listener = permitting().bind(&address).await.unwrap();
        let file = directory.path().join(format!(".ping.sock.{suffix}"));
        std::fs::remove_file(&file).unwrap();
        let error = take_over(&address).await.unwrap_err();
        assert_eq!(error.kind(), BindErrorKind::AlreadyServed);
        let text = error.to_string();
        assert!(
            text.contains(file.to_str().unwrap()) && text.contains("file was removed"),
            "{text}"
        );
    }
}

/// In a sticky directory it may be another user who listens there.
#[tokio::test]
async fn a_process_that_listens_on_the_control_sockets_name_is_told_by_that_name() {
    let directory = directory();
    let address = socket_in(directory.path());
    let control = control(directory.path());
    let _other = std::os::unix::net::UnixListener::bind(&control).unwrap();
    let text = take_over(&address).await.unwrap_err().to_string();
    let says = format!("another process listens on {}", control.display());
    assert!(text.contains(&says) && !text.contains("already being served"), "{text}");
    assert_eq!(names_in(directory.path()), [".ping.sock.control"]);
}

#[tokio::test]
async fn hostile_peers_of_the_control_socket_get_nothing_and_the_server_is_unharmed() {
    let directory = directory();
    let address = socket_in(directory.path());
    let former = permitting().bind(&address).await.unwrap();
    let lock = directory.path().join(".ping.sock.lock");
    let open = |path: &Path, flags| {
        rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap()
    };
    let ask = [MAGIC, b"?"].concat();

    // Garbage and messages in the wrong order get no answer.
    let acknowledgement = [MAGIC, b".", &[0; 16]].concat();
    for bytes in [&b"x"[..], b"GET / HTTP/1.1\r\n\r\n", MAGIC, &ask, &acknowledgement] {
        let socket = connect(directory.path()).unwrap();
        send(&socket, bytes, &[]);
        assert!(answer(socket).await.is_empty(), "{bytes:?}");
    }
    // These requests do not prove that their sender may write to the directory.
    let other = open(Path::new("/dev/null"), OFlags::RDWR);
    let read_only = open(&lock, OFlags::RDONLY);
    let path_only = open(&lock, OFlags::PATH);
    for descriptor in [&other, &read_only, &path_only] {
        let socket = connect(directory.path()).unwrap();
        send(&socket, &ask, &[descriptor.as_fd()]);
        assert_eq!(answer(socket).await, [MAGIC, b"-l"].concat());
    }
    // This request has more descriptors than the protocol allows.
    let socket = connect(directory.path()).unwrap();
    send(&socket, &ask, &[other.as_fd(); 8]);
    assert!(answer(socket).await.is_empty());
    // A peer that takes the descriptors and repeats another nonce is not a successor.
    let writable = open(&lock, OFlags::RDWR);
    let socket = connect(directory.path()).unwrap();
    send(&socket, &ask, &[writable.as_fd()]);
    let copy = socket.try_clone().unwrap();
    assert!(answer(copy).await.starts_with(&[MAGIC, b"!"].concat()));
    send(&socket, &acknowledgement, &[]);
    assert!(answer(socket).await.is_empty());
    // Silent peers delay a successor for a limited time only.
    let silent: Vec<_> = (0..8).map(|_| connect(directory.path()).unwrap()).collect();
    let listener = take_over(&address).await.unwrap();
    former.handed_over().await;
    drop((silent, listener));
}

#[tokio::test]
async fn another_user_is_kept_out_by_the_mode_and_refused_without_it() {
    use std::os::unix::fs::PermissionsExt;
    let directory = directory();
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let address = socket_in(directory.path());
    let _listener = permitting().mode(0o666).bind(&address).await.unwrap();
    let path = directory.path().to_owned();
    let Some(refused) = as_user(1234, 1234, &[], || connect(&path).unwrap_err()) else { return };
    assert_eq!(refused, Errno::ACCESS);
    std::fs::set_permissions(control(&path), PermissionsExt::from_mode(0o666)).unwrap();
    let socket = as_user(1234, 1234, &[], || connect(&path).unwrap()).unwrap();
    assert_eq!(answer(socket).await, [MAGIC, b"-u"].concat());
}

#[tokio::test]
async fn another_service_on_the_control_socket_is_not_taken_for_a_server() {
    let directory = directory();
    let address = socket_in(directory.path());
    let _plain = Listener::bind(&address).await.unwrap();
    // The control socket is another program's.
    let at = SocketAddrUnix::new(control(directory.path())).unwrap();
    let service = packets();
    rustix::net::bind(&service, &at).unwrap();
    rustix::net::listen(&service, 8).unwrap();
    let answering = tokio::task::spawn_blocking(move || {
        let client = rustix::net::accept(&service).unwrap();
        rustix::net::send(&client, b"220 ready", SendFlags::empty()).unwrap();
        // It does not read what it is sent, and sends nothing else.
        (service, client)
    });
    let error = take_over(&address).await.unwrap_err();
    assert_eq!(error.kind(), BindErrorKind::TakeOver, "{error}");
    assert!(error.to_string().contains("is no hand-over of samehost"), "{error}");
    drop(answering.await.unwrap());

    std::fs::remove_file(control(directory.path())).unwrap();
    let _stream = std::os::unix::net::UnixListener::bind(control(directory.path())).unwrap();
    let error = take_over(&address).await.unwrap_err();
    assert_eq!(error.io_error().and_then(Errno::from_io_error), Some(Errno::PROTOTYPE), "{error}");

    std::fs::remove_file(control(directory.path())).unwrap();
    let socket = packets();
    rustix::net::bind(&socket, &at).unwrap();
    // The socket's credentials are those of the thread that called listen(2).
    if as_user(1234, 1234, &[], || rustix::net::listen(&socket, 8).unwrap()).is_some() {
        let error = take_over(&address).await.unwrap_err();
        assert!(error.to_string().contains("the server there runs as uid 1234"), "{error}");
    }
}

#[tokio::test]
async fn a_listener_put_together_again_serves_on_and_removes_its_file() {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let listener = permitting().mode(0o660).bind(&address).await.unwrap();
    let _queued = std::os::unix::net::UnixStream::connect(path).unwrap();
    let parts = listener.into_parts().unwrap();
    assert_eq!(names_in(directory.path()), [".ping.sock.lock", "ping.sock"]);
    let error = Listener::bind(&address).await.unwrap_err();
    assert_eq!(error.kind(), BindErrorKind::AlreadyServed);
    let listener = Listener::from_parts(parts).unwrap();
    listener.accept().await.unwrap();
    drop(listener);
    assert!(names_in(directory.path()).is_empty());
}

#[tokio::test]
async fn the_parts_of_a_socket_that_was_published_again_belong_together() {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let listener = permitting().republish(true).bind(&address).await.unwrap();
    std::fs::remove_file(path).unwrap();
    eventually_async("the socket is back", || path.exists()).await;
    let listener = Listener::from_parts(listener.into_parts().unwrap()).unwrap();
    let _client = std::os::unix::net::UnixStream::connect(path).unwrap();
    let accepted = timeout(Duration::from_secs(20), listener.accept()).await;
    accepted.expect("the socket that has the file").unwrap();
}

#[tokio::test]
async fn a_socket_that_was_handed_over_has_no_parts() {
    let directory = directory();
    let address = socket_in(directory.path());
    let former = permitting().bind(&address).await.unwrap();
    let _listener = take_over(&address).await.unwrap();
    former.handed_over().await;
    let error = former.into_parts().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotConnected, "{error}");
    assert_eq!(names_in(directory.path()), [".ping.sock.control", ".ping.sock.lock", "ping.sock"]);
}

#[tokio::test]
async fn parts_that_do_not_belong_together_are_refused_and_nothing_is_removed() {
    let directory = directory();
    let address = socket_in(directory.path());
    let path = address.as_path().unwrap();
    let parts = Listener::bind(&address).await.unwrap().into_parts().unwrap();
    let ListenerParts { socket, lock, inode, .. } = &parts;
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let copy = |fd: &OwnedFd| fd.try_clone().unwrap();
    let some = |fd: &Option<OwnedFd>| fd.as_ref().map(copy);
    let wrong = [
        (null(), some(lock), some(inode)),
        (copy(socket), Some(null()), some(inode)),
        (copy(socket), some(lock), Some(null())),
        (copy(socket), some(inode), some(lock)),
    ];
    for (socket, lock, inode) in wrong {
        let parts = ListenerParts { socket, lock, inode, address: address.clone() };
        let error = Listener::from_parts(parts).unwrap_err();
        assert_eq!(error.kind(), BindErrorKind::TakeOver, "{error}");
        assert!(path.exists());
    }
    drop(Listener::from_parts(parts).unwrap());
    assert!(names_in(directory.path()).is_empty());

    // A TCP listener has neither file nor lock.
    let parts = Listener::bind("127.0.0.1:0").await.unwrap().into_parts().unwrap();
    assert!(parts.lock.is_none() && parts.inode.is_none());
    let bound = parts.address.clone();
    assert_eq!(Listener::from_parts(parts).unwrap().local_addr(), &bound);
}

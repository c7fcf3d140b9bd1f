//! The messages of a hand-over: one packet each, some with descriptors.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::BytesMut;
use rustix::io::Errno;

use crate::socket::rights::{self, ReceivedRights};

/// The first bytes of each message. The last of them is the protocol's version.
const MAGIC: &[u8; 16] = b"samehost-handov1";

/// The number of descriptors in an offer.
const DESCRIPTORS: usize = 5;

/// No message has more bytes.
const LONGEST: usize = 64;

/// What passes from one process to the other.
#[derive(Debug)]
pub(in crate::socket) struct Parts {
    pub(in crate::socket) socket: OwnedFd,
    pub(in crate::socket) lock: OwnedFd,
    /// The inode of the published socket (`O_PATH`).
    pub(in crate::socket) inode: OwnedFd,
    /// The control socket, and its inode.
    pub(in crate::socket) control: OwnedFd,
    pub(in crate::socket) control_inode: OwnedFd,
}

/// Tells one offer from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nonce([u8; 16]);

/// Why a server does not hand over its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Another successor was there first.
    Busy,
    /// The successor's user is another one.
    User,
    /// The successor cannot write to the lock file.
    Lock,
}

/// A message of the successor.
#[derive(Debug)]
pub(super) enum SuccessorMessage {
    /// It asks, and shows that it can write to the lock file.
    Ask(OwnedFd),
    /// It takes the offer.
    Acknowledge(Nonce),
}

/// A message of the server.
#[derive(Debug)]
pub(super) enum ServerMessage {
    Offer(Nonce, Parts),
    Refusal(Refusal),
}

impl Nonce {
    pub(super) fn new() -> Self {
        let random = [0, 1].map(|part: u64| RandomState::new().hash_one(part).to_ne_bytes());
        let mut nonce = [0; 16];
        nonce.copy_from_slice(random.as_flattened());
        Self(nonce)
    }
}

pub(super) fn ask(socket: impl AsFd, lock: BorrowedFd<'_>) -> io::Result<()> {
    send(socket, b'?', &[], &[lock])
}

pub(super) fn acknowledge(socket: impl AsFd, nonce: Nonce) -> io::Result<()> {
    send(socket, b'.', &nonce.0, &[])
}

pub(super) fn offer(
    socket: impl AsFd,
    nonce: Nonce,
    descriptors: [BorrowedFd<'_>; DESCRIPTORS],
) -> io::Result<()> {
    send(socket, b'!', &nonce.0, &descriptors)
}

pub(super) fn refuse(socket: impl AsFd, refusal: Refusal) -> io::Result<()> {
    let code = match refusal {
        Refusal::Busy => b'b',
        Refusal::User => b'u',
        Refusal::Lock => b'l',
    };
    send(socket, b'-', &[code], &[])
}

/// Receives a message of the successor, or `None` at the end.
pub(super) fn request(socket: impl AsFd) -> io::Result<Option<SuccessorMessage>> {
    let Some((kind, rest, descriptors)) = receive(socket)? else { return Ok(None) };
    let request = match (kind, <[OwnedFd; 1]>::try_from(descriptors), <[u8; 16]>::try_from(rest)) {
        (b'?', Ok([lock]), _) => SuccessorMessage::Ask(lock),
        (b'.', Err(none), Ok(nonce)) if none.is_empty() => {
            SuccessorMessage::Acknowledge(Nonce(nonce))
        }
        _ => return Err(garbage()),
    };
    Ok(Some(request))
}

/// Receives a message of the server, or `None` at the end.
pub(super) fn reply(socket: impl AsFd) -> io::Result<Option<ServerMessage>> {
    let Some((kind, rest, descriptors)) = receive(socket)? else { return Ok(None) };
    let descriptors = <[OwnedFd; DESCRIPTORS]>::try_from(descriptors);
    let reply = match (kind, &rest[..], descriptors) {
        (b'!', nonce, Ok([socket, lock, inode, control, control_inode])) => {
            let nonce = Nonce(nonce.try_into().map_err(|_| garbage())?);
            ServerMessage::Offer(nonce, Parts { socket, lock, inode, control, control_inode })
        }
        (b'-', b"b", _) => ServerMessage::Refusal(Refusal::Busy),
        (b'-', b"u", _) => ServerMessage::Refusal(Refusal::User),
        (b'-', b"l", _) => ServerMessage::Refusal(Refusal::Lock),
        _ => return Err(garbage()),
    };
    Ok(Some(reply))
}

/// Returns the error for bytes that are not a message of this protocol.
fn garbage() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what answers there is no hand-over of samehost")
}

fn send(
    socket: impl AsFd,
    kind: u8,
    rest: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    rights::send(socket, &[&MAGIC[..], &[kind], rest].concat(), descriptors)?;
    Ok(())
}

/// A message's kind, the rest of its bytes and its descriptors.
type RawMessage = (u8, Vec<u8>, Vec<OwnedFd>);

fn receive(socket: impl AsFd) -> io::Result<Option<RawMessage>> {
    let mut bytes = BytesMut::with_capacity(LONGEST);
    let received = loop {
        match rights::receive(&socket, &mut bytes, usize::MAX) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            received => break received?,
        }
    };
    parse(&bytes, received)
}

fn parse(bytes: &[u8], received: ReceivedRights) -> io::Result<Option<RawMessage>> {
    if received.bytes == 0 {
        return Ok(None);
    }
    match bytes.strip_prefix(MAGIC).and_then(<[u8]>::split_first) {
        // The kernel drops what this process may not open (RLIMIT_NOFILE).
        Some(_) if received.truncated => Err(Errno::MFILE.into()),
        Some((kind, rest)) if !received.cut => {
            Ok(Some((*kind, rest.to_vec(), received.descriptors)))
        }
        _ => Err(garbage()),
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{
        AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType, shutdown, socketpair,
    };

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    #[test]
    fn messages_and_their_descriptors_arrive_as_they_were_sent() {
        let (ours, theirs) = pair();
        ask(&ours, ours.as_fd()).unwrap();
        assert!(matches!(request(&theirs).unwrap(), Some(SuccessorMessage::Ask(_))));
        let nonce = Nonce::new();
        offer(&theirs, nonce, [ours.as_fd(); DESCRIPTORS]).unwrap();
        let Some(ServerMessage::Offer(offered, _)) = reply(&ours).unwrap() else { panic!() };
        assert_eq!(offered, nonce);
        acknowledge(&ours, nonce).unwrap();
        let Some(SuccessorMessage::Acknowledge(acknowledged)) = request(&theirs).unwrap() else {
            panic!()
        };
        assert_eq!(acknowledged, nonce);
        assert_ne!(nonce, Nonce::new());
        for refusal in [Refusal::Busy, Refusal::User, Refusal::Lock] {
            refuse(&theirs, refusal).unwrap();
            let Some(ServerMessage::Refusal(refused)) = reply(&ours).unwrap() else { panic!() };
            assert_eq!(refused, refusal);
        }
        drop(theirs);
        assert!(reply(&ours).unwrap().is_none());
    }

    #[test]
    fn anything_else_is_garbage() {
        let (ours, theirs) = pair();
        let long = [MAGIC, &b"?"[..], &[0; 100]].concat();
        for bytes in [&b"x"[..], b"GET / HTTP/1.1\r\n\r\n", MAGIC, b"samehost-handov1?", &long] {
            rustix::net::send(&theirs, bytes, SendFlags::empty()).unwrap();
            let error = request(&ours).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
        // An acknowledgement with descriptors, then a request with more than one.
        send(&theirs, b'.', &[0; 16], &[ours.as_fd()]).unwrap();
        request(&ours).unwrap_err();
        send(&theirs, b'?', &[], &[ours.as_fd(); 2]).unwrap();
        request(&ours).unwrap_err();
    }

    #[test]
    fn descriptors_that_this_process_may_not_open_are_not_garbage() {
        let (ours, _theirs) = pair();
        let bytes = [MAGIC, &b"?"[..]].concat();
        let received = |truncated| ReceivedRights {
            bytes: bytes.len(),
            descriptors: vec![ours.try_clone().unwrap()],
            truncated,
            cut: false,
        };
        assert!(parse(&bytes, received(false)).unwrap().is_some());
        let error = parse(&bytes, received(true)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::MFILE.raw_os_error()));
    }

    /// The decision between the two ends depends on this.
    #[test]
    fn after_the_reader_has_shut_down_a_send_fails_and_one_from_before_is_read() {
        let (ours, theirs) = pair();
        let nonce = Nonce::new();
        acknowledge(&theirs, nonce).unwrap();
        shutdown(&ours, Shutdown::Read).unwrap();
        assert_eq!(acknowledge(&theirs, nonce).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(matches!(request(&ours).unwrap(), Some(SuccessorMessage::Acknowledge(_))));
        assert!(request(&ours).unwrap().is_none());
    }
}

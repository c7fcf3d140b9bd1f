//! Bare sockets to compare any RPC with: no RPC, no runtime, one thread at each end.
//!
//! A client first sends what it wants, as an [`Order`]. Both ends then do that until the client
//! closes the connection. The server has one client at a time.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use samehost::Address;
use tokio::sync::oneshot;

use super::cell::{Cell, Kind, Wait};
use super::memory;
use super::worker::{Problem, Recorder, Share, Worker};
use crate::failure::Failure;

/// How much the reader of a one-way stream asks for at once: as much as samehost's driver.
const READ_MAX: usize = 256 * 1024;

/// What the two ends have to do.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Order {
    job: Job,
    wait: Wait,
    payload: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Job {
    /// The server sends back what it receives.
    PingPong,
    /// The server sends one message after the other.
    OneWay,
    /// The server receives a message, and answers with its result ([`memory::seen`]).
    Take,
    /// The server does the same, and reads every byte.
    TakeAndRead,
}

impl Job {
    const ALL: [Self; 4] = [Self::PingPong, Self::OneWay, Self::Take, Self::TakeAndRead];

    fn of(cell: &Cell) -> Self {
        match (cell.kind, cell.delivery) {
            (_, Some(delivery)) if delivery.read => Self::TakeAndRead,
            (_, Some(_)) => Self::Take,
            (Kind::Bulk, None) => Self::OneWay,
            _ => Self::PingPong,
        }
    }
}

impl Order {
    const LEN: usize = 6;

    fn of(cell: &Cell) -> Self {
        Self {
            job: Job::of(cell),
            wait: cell.wait,
            payload: u32::try_from(cell.payload).unwrap_or(u32::MAX),
        }
    }

    fn to_bytes(self) -> [u8; Self::LEN] {
        let [a, b, c, d] = self.payload.to_le_bytes();
        [self.job as u8, u8::from(self.wait == Wait::Spin), a, b, c, d]
    }

    fn from_bytes([job, wait, payload @ ..]: [u8; Self::LEN]) -> Self {
        Self {
            job: Job::ALL.into_iter().find(|known| *known as u8 == job).unwrap_or(Job::PingPong),
            wait: if wait == 0 { Wait::Block } else { Wait::Spin },
            payload: u32::from_le_bytes(payload),
        }
    }
}

/// A connected socket that sleeps or spins while it has to wait.
struct Socket {
    socket: OwnedFd,
    wait: Wait,
}

impl Socket {
    fn connect(address: &Address, order: Order) -> io::Result<Self> {
        let socket = match address.as_path() {
            Some(path) => UnixStream::connect(path)?.into(),
            None => {
                let ip: SocketAddr = address.to_string().parse().map_err(io::Error::other)?;
                without_delay(TcpStream::connect(ip)?)?
            }
        };
        let socket = Self { socket, wait: order.wait };
        socket.write_all(&order.to_bytes())?;
        Ok(socket)
    }

    /// Reads what is there. It fails if the peer has closed the connection.
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let flags = match self.wait {
            Wait::Block => RecvFlags::empty(),
            Wait::Spin => RecvFlags::DONTWAIT,
        };
        loop {
            match rustix::net::recv(&self.socket, &mut *buf, flags) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((bytes, _)) => return Ok(bytes),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn read_exact(&self, buf: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buf.len() {
            filled += self.read(&mut buf[filled..])?;
        }
        Ok(())
    }

    fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        let flags = match self.wait {
            Wait::Block => SendFlags::NOSIGNAL,
            Wait::Spin => SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
        };
        while !bytes.is_empty() {
            match rustix::net::send(&self.socket, bytes, flags) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

/// Small messages must not wait for the acknowledgement of earlier ones (tcp(7)).
fn without_delay(stream: TcpStream) -> io::Result<OwnedFd> {
    stream.set_nodelay(true)?;
    Ok(stream.into())
}

/// The server's socket.
pub(super) enum RawListener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl RawListener {
    /// Binds a path, or a port of IPv4. Returns its address as well.
    pub(super) fn bind(address: &Address) -> Result<(Self, Address), Failure> {
        match address.as_path() {
            Some(path) => Ok((Self::Unix(UnixListener::bind(path)?), address.clone())),
            None => {
                let ip: SocketAddr = address.to_string().parse()?;
                let listener = TcpListener::bind(ip)?;
                let address = listener.local_addr()?.to_string().parse()?;
                Ok((Self::Tcp(listener), address))
            }
        }
    }

    /// Serves one client after the other until accept(2) fails.
    pub(super) fn serve(&self) -> io::Result<()> {
        // One buffer for all clients: its pages exist from the first client on.
        let mut message = Vec::new();
        loop {
            let socket = match self {
                Self::Unix(listener) => listener.accept()?.0.into(),
                Self::Tcp(listener) => without_delay(listener.accept()?.0)?,
            };
            // Every connection ends in this way: the client closes it.
            let _ = serve(socket, &mut message);
        }
    }
}

fn serve(socket: OwnedFd, message: &mut Vec<u8>) -> io::Result<()> {
    let mut socket = Socket { socket, wait: Wait::Block };
    let mut order = [0; Order::LEN];
    socket.read_exact(&mut order)?;
    let order = Order::from_bytes(order);
    socket.wait = order.wait;
    message.resize(order.payload as usize, 0);
    loop {
        if order.job != Job::OneWay {
            socket.read_exact(message)?;
        }
        match order.job {
            Job::PingPong | Job::OneWay => socket.write_all(message)?,
            Job::Take | Job::TakeAndRead => {
                let seen = memory::seen(message, order.job == Job::TakeAndRead);
                socket.write_all(&seen.to_le_bytes())?;
            }
        }
    }
}

/// The client: it sends one message after the other, with its own thread and connection for each
/// run.
pub(super) struct RawWorker {
    address: Address,
    order: Order,
    payload: Bytes,
}

impl RawWorker {
    pub(super) fn new(address: Address, cell: &Cell) -> Self {
        let payload = match cell.delivery {
            Some(_) => memory::payload(cell.payload),
            None => vec![0; cell.payload],
        };
        Self { address, order: Order::of(cell), payload: payload.into() }
    }
}

#[tonic::async_trait]
impl Worker for RawWorker {
    async fn run(&mut self, share: Share, recorder: Arc<Recorder>) -> Result<(), Problem> {
        let (order, payload) = (self.order, self.payload.clone());
        let socket = Arc::new(Socket::connect(&self.address, order).map_err(Problem::raw)?);
        let hang_up = HangUp(Arc::clone(&socket));
        let (done, wait) = oneshot::channel();
        let client = move || {
            let _ = done.send(match order.job {
                Job::PingPong => ping_pong(&socket, payload.to_vec(), share, &recorder),
                Job::OneWay => one_way(&socket, order.payload.into(), share, &recorder),
                Job::Take | Job::TakeAndRead => {
                    hand_over(&socket, order.job, &payload, share, &recorder)
                }
            });
        };
        thread::Builder::new().name("raw".to_owned()).spawn(client).map_err(Problem::raw)?;
        let done = wait.await.unwrap_or_else(|_| Err(io::Error::other("the client panicked")));
        drop(hang_up);
        done.map_err(Problem::raw)
    }
}

impl Problem {
    fn raw(error: io::Error) -> Self {
        Self::Other(format!("the bare socket failed: {error}"))
    }
}

/// Ends the thread that uses the socket, in whatever way it waits.
struct HangUp(Arc<Socket>);

impl Drop for HangUp {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.0.socket, Shutdown::Both);
    }
}

fn ping_pong(
    socket: &Socket,
    mut message: Vec<u8>,
    share: Share,
    recorder: &Recorder,
) -> io::Result<()> {
    let mut calls = 0;
    let mut now = Instant::now();
    while share.goes_on(calls, now) {
        calls += 1;
        let started = Instant::now();
        socket.write_all(&message)?;
        socket.read_exact(&mut message)?;
        now = Instant::now();
        recorder.record(now - started);
    }
    Ok(())
}

fn one_way(socket: &Socket, payload: u64, share: Share, recorder: &Recorder) -> io::Result<()> {
    let mut buf = vec![0; READ_MAX];
    let (mut calls, mut bytes) = (0, 0);
    let mut last = Instant::now();
    while share.goes_on(calls, last) {
        bytes += socket.read(&mut buf)? as u64;
        let messages = (bytes / payload - calls).min(share.left(calls));
        if let Ok(several @ 1..) = u32::try_from(messages) {
            let now = Instant::now();
            recorder.record_many((now - last) / several, messages);
            last = now;
            calls += messages;
        }
    }
    Ok(())
}

fn hand_over(
    socket: &Socket,
    job: Job,
    payload: &[u8],
    share: Share,
    recorder: &Recorder,
) -> io::Result<()> {
    let expected = memory::seen(payload, job == Job::TakeAndRead);
    let mut calls = 0;
    let mut now = Instant::now();
    while share.goes_on(calls, now) {
        calls += 1;
        let started = Instant::now();
        socket.write_all(payload)?;
        let mut seen = [0; 8];
        socket.read_exact(&mut seen)?;
        now = Instant::now();
        recorder.record(now - started);
        if u64::from_le_bytes(seen) != expected {
            return Err(io::Error::other("the server saw another payload"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_arrives_as_it_was_sent() {
        for job in Job::ALL {
            for wait in [Wait::Block, Wait::Spin] {
                let order = Order { job, wait, payload: 16 << 20 };
                assert_eq!(Order::from_bytes(order.to_bytes()), order);
            }
        }
    }
}

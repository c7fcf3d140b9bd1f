//! Descriptors stay with their call: many calls at a time, each with some, that end in every way a call
//! can end. Each handler gets those of its own call, and nobody holds any after it.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use samehost::ping::{
    CollectRequest, CollectResponse, PingRequest, PingResponse, PingServiceClient,
};
use samehost::{Address, Channel, Descriptors, Listener, RetryPolicy, Server};
use tokio::task::JoinSet;
use tonic::{Code, Request, Response, Status};

use crate::Scale;
use crate::support::{
    Scripted, Serving, block_on, directory, eventually_async, need_descriptors, open_descriptors,
    socket_in,
};

/// Calls in flight.
const CALLS: u64 = 64;

/// Descriptors of one call.
const MOST: usize = 16;

/// Connections get old, so that calls meet GOAWAY and are sent again.
const AGE: Duration = Duration::from_millis(200);

/// Every way in which a call ends here. Its name is the request's message.
const ENDINGS: &[&str] = &[
    "answered",
    "collected",
    "untaken",
    "refused",
    "retried",
    "cancelled",
    "dropped",
    "timed out",
    "too many",
];

pub(crate) fn stay_with_their_call(scale: Scale) -> String {
    if !need_descriptors(16_384) {
        return "left out: too few file descriptors are allowed".to_owned();
    }
    let time = scale.time.unwrap_or(scale.pick(Duration::from_secs(20), Duration::from_secs(600)));
    let directory = directory();
    let address = socket_in(directory.path());
    let mut command = Command::new(std::env::current_exe().unwrap());
    let mut server =
        Serving::spawn(command.args(["as", "returner", &address.to_string()]).stdin(Stdio::null()));
    assert_eq!(server.line(), "ready");
    let id = server.id();
    let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    block_on(async {
        // An end that has made a call has opened what it opens by itself.
        let first = channel(&address).await;
        PingServiceClient::new(first.clone()).ping(PingRequest::ping()).await.unwrap();
        let before = (open_descriptors(id), open_descriptors("self"));
        let channel = channel(&address).await;
        let endings = Arc::new(Mutex::new(BTreeMap::<&str, u64>::new()));
        let until = Instant::now() + time;
        let mut callers = JoinSet::new();
        for caller in 0..CALLS {
            let mut random = Random(seed ^ (caller + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let (client, endings) = (PingServiceClient::new(channel.clone()), Arc::clone(&endings));
            callers.spawn(async move {
                while Instant::now() < until {
                    let ending = random.one_of(ENDINGS);
                    call(client.clone(), ending, &mut random).await;
                    *endings.lock().unwrap().entry(ending).or_default() += 1;
                }
            });
        }
        while let Some(caller) = callers.join_next().await {
            caller.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        drop(channel);
        let closed = || open_descriptors(id) <= before.0 && open_descriptors("self") <= before.1;
        eventually_async("no descriptor more than before at either end", closed).await;
        let mut asking = PingServiceClient::new(first);
        let report = PingRequest { message: "report".to_owned(), ..PingRequest::default() };
        let report = asking.ping(report).await.unwrap().into_inner();
        let endings = endings.lock().unwrap();
        assert_eq!(endings.len(), ENDINGS.len(), "{endings:?}");
        assert!(report.sequence > 1, "no connection was replaced");
        format!(
            "{} calls with 1 to {MOST} descriptors, {CALLS} at a time on {} connections, each got \
             its own and nobody has any: {endings:?}; descriptors before and after: {before:?}",
            endings.values().sum::<u64>(),
            report.sequence
        )
    })
}

async fn channel(address: &Address) -> Channel {
    let retry = RetryPolicy::new()
        .codes([Code::Unavailable])
        .backoff(Duration::from_millis(1), Duration::from_millis(1))
        .throttle(1_000_000, 1.0);
    let builder = Channel::builder(address).descriptors(MOST as u8 + 1).retry(retry);
    // On a busy machine a connection may be old before it is ready.
    builder.wait_for_ready(true).connect().await.unwrap()
}

/// A call that ends as `ending` says. It returns when nobody has its descriptors any more.
async fn call(mut client: PingServiceClient<Channel>, ending: &'static str, random: &mut Random) {
    let count =
        1 + random.below(MOST as u64) as usize + if ending == "too many" { MOST } else { 0 };
    let pairs = (0..count).map(|_| UnixStream::pair().unwrap());
    let (ours, theirs): (Vec<_>, Vec<_>) = pairs.unzip();
    let inodes: Vec<u64> = theirs.iter().map(inode).collect();
    let patience = Duration::from_micros(random.below(3_000));
    let payload: Vec<u8> = inodes.iter().flat_map(|inode| inode.to_le_bytes()).collect();
    let mut request = Request::new(PingRequest {
        message: ending.to_owned(),
        payload: payload.into(),
        sequence: random.below(2_000),
    });
    request.extensions_mut().insert(theirs.into_iter().collect::<Descriptors>());
    match ending {
        "collected" => {
            let (_, mut extensions, PingRequest { message, payload, sequence }) =
                request.into_parts();
            let first = CollectRequest { message, payload, sequence };
            let mut request = Request::new(tokio_stream::iter([first, CollectRequest::default()]));
            request.extensions_mut().insert(extensions.remove::<Descriptors>().unwrap());
            check(client.collect(request).await.unwrap().extensions(), &inodes);
        }
        "cancelled" => {
            let cancelled = tokio::time::timeout(patience, client.ping(request)).await;
            if let Ok(answered) = cancelled {
                panic!("{answered:?}");
            }
        }
        "dropped" => {
            let mut call = Box::pin(client.ping(request));
            std::future::poll_fn(|cx| {
                assert!(call.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
        }
        "timed out" => {
            request.set_timeout(patience);
            let status = client.ping(request).await.unwrap_err();
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        }
        "refused" => {
            let status = client.ping(request).await.unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied, "{status}");
        }
        "too many" => {
            let status = client.ping(request).await.unwrap_err();
            assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        }
        "untaken" => {
            let response = client.ping(request).await.unwrap();
            assert!(response.extensions().get::<Descriptors>().is_none());
        }
        _ => {
            let response = client.ping(request).await.unwrap_or_else(|status| {
                panic!("{ending}: {status}");
            });
            check(response.extensions(), &inodes);
        }
    }
    for ours in ours {
        is_closed(ours).await;
    }
}

/// What came back must be what was sent. It is closed here.
fn check(extensions: &tonic::Extensions, inodes: &[u64]) {
    let list = extensions.get::<Descriptors>().expect("descriptors").take();
    assert_eq!(list.iter().map(inode).collect::<Vec<_>>(), inodes);
}

fn inode(descriptor: impl AsFd) -> u64 {
    rustix::fs::fstat(descriptor).unwrap().st_ino
}

/// No process and no call has the other end of `ours`.
async fn is_closed(mut ours: UnixStream) {
    ours.set_nonblocking(true).unwrap();
    let end = || matches!(ours.read(&mut [0]), Ok(0));
    eventually_async("a descriptor is closed when its call has ended", end).await;
}

/// Which server [`run`] is.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Its connections get old.
    Returner,
    /// Takes more, and keeps its connections as long as they answer.
    Attacked,
    /// Takes some that nobody sends.
    Unused,
    /// Takes none.
    Plain,
}

/// The server: returns what it gets, after it has compared it with what the request names.
pub(crate) fn run(address: &str, kind: Kind) -> ExitCode {
    let connections = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let service = Scripted::default()
        .on_ping({
            let connections = Arc::clone(&connections);
            move |request| ping(request, connections.load(std::sync::atomic::Ordering::Relaxed))
        })
        .on_collect(async move |mut request: Request<tonic::Streaming<CollectRequest>>| {
            let list = request.extensions_mut().remove::<Descriptors>().unwrap_or_default();
            let mut messages = request.into_inner();
            let first = messages.message().await?.ok_or_else(|| Status::data_loss("no message"))?;
            let list = compared(&list, &first.payload)?;
            while messages.message().await?.is_some() {}
            let mut response = Response::new(CollectResponse::default());
            response.extensions_mut().insert(Descriptors::from(list));
            Ok(response)
        });
    let server = match kind {
        Kind::Attacked => {
            let silence = Duration::from_secs(5);
            let server = service.server().keep_alive_interval(silence).keep_alive_timeout(silence);
            server.descriptors(253)
        }
        Kind::Returner => service.server().descriptors(MOST as u8).max_connection_age(AGE),
        Kind::Unused => service.server().descriptors(MOST as u8),
        Kind::Plain => service.server(),
    };
    let server: Server = server.on_connect(move |_| {
        connections.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        samehost::tonic::codegen::http::Extensions::new()
    });
    let address: Address = address.parse().unwrap();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = Listener::bind(&address).await.unwrap();
        println!("ready");
        server.serve(listener).await.unwrap();
    });
    ExitCode::SUCCESS
}

async fn ping(
    mut request: Request<PingRequest>,
    connections: u64,
) -> Result<Response<PingResponse>, Status> {
    let ending = &*request.get_ref().message;
    if ending == "report" {
        return Ok(Response::new(PingResponse { sequence: connections, ..Default::default() }));
    }
    if ending == "retried" && request.metadata().get("grpc-previous-rpc-attempts").is_none() {
        return Err(Status::unavailable("once more"));
    }
    let Some(list) = request.extensions().get::<Descriptors>().cloned() else {
        return if ending == "ping" { Ok(plain()) } else { Err(wrong("none")) };
    };
    match ending {
        "untaken" => Ok(plain()),
        "refused" => Err(Status::permission_denied("refused")),
        "cancelled" | "dropped" | "timed out" => {
            let taken = request.get_ref().sequence.is_multiple_of(2);
            let held = taken.then(|| compared(&list, &request.get_ref().payload)).transpose()?;
            std::future::pending::<()>().await;
            drop(held);
            Ok(plain())
        }
        "held" => {
            let _held = list.take();
            std::future::pending().await
        }
        "returned" => {
            let mut response = plain();
            response.extensions_mut().insert(Descriptors::from(list.take()));
            Ok(response)
        }
        _ => {
            let list = compared(&list, &request.get_ref().payload)?;
            if request.get_ref().sequence.is_multiple_of(2) {
                tokio::time::sleep(Duration::from_micros(request.get_ref().sequence)).await;
            }
            let mut response = Response::new(PingResponse::default());
            response.extensions_mut().insert(Descriptors::from(list));
            request.extensions_mut().clear();
            Ok(response)
        }
    }
}

fn plain() -> Response<PingResponse> {
    Response::new(PingResponse::default())
}

/// The descriptors, if they are those that the request names.
fn compared(list: &Descriptors, named: &[u8]) -> Result<Vec<OwnedFd>, Status> {
    let list = list.take();
    let inodes: Vec<u8> = list.iter().flat_map(|fd| inode(fd).to_le_bytes()).collect();
    if inodes == named { Ok(list) } else { Err(wrong("those of another call")) }
}

fn wrong(what: &str) -> Status {
    eprintln!("a handler got {what}");
    Status::data_loss(format!("the handler got {what}"))
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
}

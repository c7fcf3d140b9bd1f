//! The options of the blocking client: which server, retries, waiting, and what observers are told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use samehost::blocking::{Channel, ChannelBuilder};
use samehost::ping::{
    BlockingPingServiceClient as Client, CollectRequest, ConverseRequest, PingRequest,
    PingResponse, WatchRequest, WatchResponse,
};
use samehost::{
    ConnectErrorKind, Descriptors, Event, Observer, PeerIdentity, PeerPolicy, WaitForReady,
};
use tonic::{Code, Request, Response, Status};

use crate::blocking::{Served, on_each_transport, ping_server, request};
use crate::notes::Notes;
use crate::retry_policy::{failing_each_first_time, policy};
use crate::support::spans::Spans;
use crate::support::{Running, Scripted, Transport, directory, eventually, socket_in};

on_each_transport!(
    a_server_is_required_to_be_one_of_the_policys,
    a_response_names_its_server,
    the_program_has_a_name,
    a_failed_call_is_made_again_and_says_so,
    what_the_policy_does_not_name_is_not_tried_again,
    the_deadline_covers_all_attempts,
    each_attempt_tells_how_much_time_is_left,
    a_call_waits_for_a_server,
    one_call_may_choose_whether_it_waits,
    descriptors_are_refused_before_anything_is_sent,
    a_call_with_a_deadline_does_not_wait_for_that_of_another,
    calls_that_wait_for_one_attempt_fail_with_it,
    an_attempt_that_a_deadline_cut_off_is_made_again_for_another_call,
    calls_with_long_and_short_deadlines_share_a_connection,
    observers_are_told_in_order,
    an_observer_is_told_how_each_kind_of_call_ended,
    an_observer_is_told_of_retries_and_resends,
    an_observer_may_use_the_channel_within_each_event,
    a_panicking_observer_harms_no_call,
    a_call_has_a_span_within_its_callers,
    a_connection_has_a_span_of_its_own,
);

fn builder(served: &Served) -> ChannelBuilder {
    Channel::builder(&served.running.address)
}

fn a_server_is_required_to_be_one_of_the_policys(transport: Transport) {
    let served = ping_server(transport);
    let ours = builder(&served).require_server(PeerPolicy::same_user()).connect();
    let nobody = builder(&served).require_server(PeerPolicy::uids([])).connect();
    match transport {
        Transport::Unix => {
            Client::new(ours.unwrap()).ping(PingRequest::ping()).unwrap();
            let error = nobody.unwrap_err();
            assert_eq!(error.kind(), ConnectErrorKind::WrongServer, "{error}");
            assert_eq!(error.server().unwrap().pid(), Some(std::process::id()));
        }
        // Over TCP no server can be told from another.
        Transport::Tcp => {
            for error in [ours.unwrap_err(), nobody.unwrap_err()] {
                assert_eq!(error.kind(), ConnectErrorKind::UnknownServer, "{error}");
            }
        }
    }
}

fn a_response_names_its_server(transport: Transport) {
    let served = ping_server(transport);
    let mut client = Client::new(builder(&served).connect().unwrap());
    let pid = |server: Option<&PeerIdentity>| server.map(|server| server.pid().unwrap());
    let expected = match transport {
        Transport::Unix => Some(std::process::id()),
        Transport::Tcp => None,
    };
    let response = client.ping(PingRequest::ping()).unwrap();
    assert_eq!(pid(response.extensions().get()), expected);
    let response = client.watch(WatchRequest::default()).unwrap();
    assert_eq!(pid(response.extensions().get()), expected);
    let one = CollectRequest { message: "ping".into(), ..Default::default() };
    let response = client.collect(Request::new([one])).unwrap();
    assert_eq!(pid(response.extensions().get()), expected);
}

fn the_program_has_a_name(transport: Transport) {
    let service = Scripted::default().on_ping(|request| async move {
        let field = |name| request.metadata().get(name).unwrap().to_str().unwrap();
        let message = field("user-agent").to_owned();
        Ok(Response::new(PingResponse { message, ..Default::default() }))
    });
    let served = Served::start(transport, service.server());
    let channel = builder(&served).user_agent("app/1.0").unwrap().connect().unwrap();
    let agent = Client::new(channel).ping(PingRequest::ping()).unwrap().into_inner().message;
    assert!(agent.starts_with("app/1.0 grpc-rust-samehost/"), "{agent}");
    assert!(builder(&served).user_agent("app\n").is_err());
}

/// The number of earlier attempts that each attempt has told.
type Seen = Arc<Mutex<Vec<Option<String>>>>;

/// Returns a service that fails `times` times.
fn failing(times: usize, code: Code) -> (Scripted, Seen) {
    let seen = Seen::default();
    let (pings, watches) = (Arc::clone(&seen), Arc::clone(&seen));
    let answer = move |seen: &Seen, metadata: &tonic::metadata::MetadataMap| {
        let previous = metadata.get("grpc-previous-rpc-attempts");
        let mut seen = seen.lock().unwrap();
        seen.push(previous.map(|value| value.to_str().unwrap().to_owned()));
        if seen.len() <= times { Err(Status::new(code, "not now")) } else { Ok(()) }
    };
    let service = Scripted::default()
        .on_ping(move |request| {
            let answer = answer(&pings, request.metadata());
            async move { answer.map(|()| Response::new(PingResponse::default())) }
        })
        .on_watch(move |request| {
            let answer = answer(&watches, request.metadata());
            tokio_stream::once(answer.map(|()| WatchResponse::default()))
        });
    (service, seen)
}

fn a_failed_call_is_made_again_and_says_so(transport: Transport) {
    let (service, seen) = failing(3, Code::Unavailable);
    let served = Served::start(transport, service.server());
    let mut client = Client::new(builder(&served).retry(policy()).connect().unwrap());
    client.ping(PingRequest::ping()).unwrap();
    let expected = [None, Some("1"), Some("2"), Some("3")];
    assert_eq!(seen.lock().unwrap().iter().map(Option::as_deref).collect::<Vec<_>>(), expected);

    let (service, seen) = failing(9, Code::Unavailable);
    let served = Served::start(transport, service.server());
    let mut client = Client::new(builder(&served).retry(policy()).connect().unwrap());
    let status = client.ping(PingRequest::ping()).unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "not now"));
    assert_eq!(seen.lock().unwrap().len(), 4);
}

fn what_the_policy_does_not_name_is_not_tried_again(transport: Transport) {
    let (service, seen) = failing(9, Code::NotFound);
    let served = Served::start(transport, service.server());
    let mut client = Client::new(builder(&served).retry(policy()).connect().unwrap());
    client.ping(PingRequest::ping()).unwrap_err();
    assert_eq!(seen.lock().unwrap().len(), 1);
    // Without a policy, nothing is.
    let (service, seen) = failing(1, Code::Unavailable);
    let served = Served::start(transport, service.server());
    let mut client = Client::new(builder(&served).connect().unwrap());
    client.ping(PingRequest::ping()).unwrap_err();
    client.ping(PingRequest::ping()).unwrap();
    assert_eq!(*seen.lock().unwrap(), [None, None]);
}

fn each_attempt_tells_how_much_time_is_left(transport: Transport) {
    let (service, told) = failing_each_first_time(|| Status::unavailable("not now"));
    let served = Served::start(transport, service.server());
    let wait = Duration::from_millis(50);
    let slow = policy().backoff(wait, wait);
    let mut client = Client::new(builder(&served).retry(slow).connect().unwrap());
    let mut request = Request::new(PingRequest::ping());
    request.set_timeout(Duration::from_secs(90));
    client.ping(request).unwrap();
    let told = told.lock().unwrap();
    // The wait is up to a fifth shorter.
    assert!(told[1] <= told[0] - 40_000, "{told:?}");
}

fn the_deadline_covers_all_attempts(transport: Transport) {
    let (service, seen) = failing(9, Code::Unavailable);
    let served = Served::start(transport, service.server());
    let slow = policy().backoff(Duration::from_secs(60), Duration::from_secs(60));
    let mut client = Client::new(builder(&served).retry(slow).connect().unwrap());
    let mut request = Request::new(PingRequest::ping());
    request.set_timeout(Duration::from_secs(1));
    let status = client.ping(request).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(status.message().contains("failed 1 times within"), "{status:?}");
    let last = "; attempt 1 failed with UNAVAILABLE: not now";
    assert!(status.message().ends_with(last), "{status:?}");
    assert_eq!(seen.lock().unwrap().len(), 1);
}

fn a_call_waits_for_a_server(transport: Transport) {
    let served = ping_server(transport);
    let address = served.running.address.clone();
    let Served { runtime, running } = served;
    let folder = runtime.block_on(running.stop());
    let notes = Notes::default();
    let channel = Channel::builder(&address).wait_for_ready(true).observer(notes.clone());
    let mut client = Client::new(channel.connect_lazy());
    let mut late = Request::new(PingRequest::ping());
    late.set_timeout(Duration::from_secs(1));
    let status = client.ping(late).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(status.message().contains("no server is listening"), "{status:?}");

    let mut waiting = client.clone();
    let failures = || notes.all().iter().filter(|note| *note == "failed NoServer").count();
    let before = failures();
    let call = thread::spawn(move || waiting.ping(PingRequest::ping()).map(drop));
    eventually("it has found no server", || failures() > before);
    let running = runtime.block_on(Running::start_at(&address, Scripted::default().server()));
    call.join().unwrap().unwrap();
    assert!(notes.all().contains(&"backoff".to_owned()));
    // What only a person can change is not waited for.
    let nowhere = Channel::builder("no address").wait_for_ready(true).connect().unwrap_err();
    assert_eq!(nowhere.kind(), ConnectErrorKind::InvalidAddress);
    drop((running, folder));
}

fn one_call_may_choose_whether_it_waits(transport: Transport) {
    let Served { runtime, running } = ping_server(transport);
    let address = running.address.clone();
    let _folder = runtime.block_on(running.stop());
    for (channel_waits, call_waits) in [(false, true), (true, false)] {
        let channel = Channel::builder(&address).wait_for_ready(channel_waits);
        let mut client = Client::new(channel.connect_lazy());
        let expected = if call_waits { Code::DeadlineExceeded } else { Code::Unavailable };
        let status = client.ping(choosing(PingRequest::ping(), call_waits)).unwrap_err();
        assert_eq!(status.code(), expected, "{status:?}");
        let status = client.collect(choosing([CollectRequest::default()], call_waits)).unwrap_err();
        assert_eq!(status.code(), expected, "{status:?}");
    }
}

/// Returns a request that waits for a server, or does not, whatever its channel does.
fn choosing<T>(message: T, waits: bool) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(WaitForReady(waits));
    request.set_timeout(Duration::from_millis(500));
    request
}

fn descriptors_are_refused_before_anything_is_sent(transport: Transport) {
    let served = ping_server(transport);
    let notes = Notes::default();
    let channel = builder(&served).observer(notes.clone()).connect_lazy();
    let mut client = Client::new(channel);
    let statuses = [
        client.ping(carrying(PingRequest::ping())).unwrap_err(),
        client.watch(carrying(WatchRequest::default())).unwrap_err(),
        client.collect(carrying([CollectRequest::default()])).unwrap_err(),
        client.converse(carrying(())).unwrap_err(),
    ];
    for status in statuses {
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    }
    let notes = notes.all();
    assert!(!notes.iter().any(|note| note.starts_with("connecting")), "{notes:?}");
    // An empty list is none.
    let mut request = Request::new(PingRequest::ping());
    request.extensions_mut().insert(Descriptors::default());
    client.ping(request).unwrap();
}

/// Returns a request with a descriptor.
fn carrying<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let file = std::fs::File::open("/dev/null").unwrap();
    request.extensions_mut().insert(Descriptors::from([file]));
    request
}

/// A socket that takes connections and says nothing.
enum Silent {
    Unix { listener: std::os::unix::net::UnixListener, _folder: tempfile::TempDir },
    Tcp(std::net::TcpListener),
}

impl Silent {
    fn bind(transport: Transport) -> (Self, samehost::Address) {
        match transport {
            Transport::Unix => {
                let folder = directory();
                let address = socket_in(folder.path());
                let listener = std::os::unix::net::UnixListener::bind(address.as_path().unwrap());
                (Self::Unix { listener: listener.unwrap(), _folder: folder }, address)
            }
            Transport::Tcp => {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap().into();
                (Self::Tcp(listener), address)
            }
        }
    }

    /// Waits for a client, and closes its connection.
    fn hang_up(&self) {
        match self {
            Self::Unix { listener, .. } => drop(listener.accept().unwrap()),
            Self::Tcp(listener) => drop(listener.accept().unwrap()),
        }
    }
}

fn a_call_with_a_deadline_does_not_wait_for_that_of_another(transport: Transport) {
    let (silent, address) = Silent::bind(transport);
    let connecting = Arc::new(AtomicUsize::new(0));
    let channel = Channel::builder(&address).observer(Counts(Arc::clone(&connecting)));
    let client = Client::new(channel.connect_lazy());
    let mut first = client.clone();
    let waiting = thread::spawn(move || first.ping(PingRequest::ping()).map(drop));
    eventually("the first call connects", || connecting.load(Ordering::SeqCst) == 1);
    let mut second = client.clone();
    let mut late = Request::new(PingRequest::ping());
    late.set_timeout(Duration::from_millis(50));
    assert_eq!(second.ping(late).unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(connecting.load(Ordering::SeqCst), 1, "it waited for the attempt of the first");
    assert!(!waiting.is_finished());
    // The first one is tried again twice at once: a successor may be there.
    for _ in 0..3 {
        silent.hang_up();
    }
    assert_eq!(waiting.join().unwrap().unwrap_err().code(), Code::Unavailable);
}

fn calls_that_wait_for_one_attempt_fail_with_it(transport: Transport) {
    let (_silent, address) = Silent::bind(transport);
    let connecting = Arc::new(AtomicUsize::new(0));
    let channel = Channel::builder(&address).observer(Counts(Arc::clone(&connecting)));
    let channel = channel.connect_timeout(Duration::from_secs(3)).connect_lazy();
    let calls = [(); 4].map(|()| {
        let mut client = Client::new(channel.clone());
        thread::spawn(move || client.ping(PingRequest::ping()).map(drop))
    });
    for call in calls {
        assert_eq!(call.join().unwrap().unwrap_err().code(), Code::Unavailable);
    }
    assert_eq!(connecting.load(Ordering::SeqCst), 1);
}

fn an_attempt_that_a_deadline_cut_off_is_made_again_for_another_call(transport: Transport) {
    let (silent, address) = Silent::bind(transport);
    let connecting = Arc::new(AtomicUsize::new(0));
    let channel = Channel::builder(&address).observer(Counts(Arc::clone(&connecting)));
    let client = Client::new(channel.connect_lazy());
    let mut first = client.clone();
    let late = thread::spawn(move || {
        let mut late = Request::new(PingRequest::ping());
        late.set_timeout(Duration::from_millis(500));
        first.ping(late).map(drop)
    });
    eventually("the first call connects", || connecting.load(Ordering::SeqCst) == 1);
    let mut second = client.clone();
    let waiting = thread::spawn(move || second.ping(PingRequest::ping()).map(drop));
    assert_eq!(late.join().unwrap().unwrap_err().code(), Code::DeadlineExceeded);
    eventually("the second call connects", || connecting.load(Ordering::SeqCst) == 2);
    for _ in 0..4 {
        silent.hang_up();
    }
    assert_eq!(waiting.join().unwrap().unwrap_err().code(), Code::Unavailable);
}

/// Counts attempts to connect.
struct Counts(Arc<AtomicUsize>);

impl Observer for Counts {
    fn observe(&self, event: &Event<'_>) {
        if let Event::ConnectBegan { .. } = event {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn never_answers() -> Scripted {
    Scripted::default().on_ping(|request| async move {
        match &*request.into_inner().message {
            "wait" => std::future::pending().await,
            _ => Ok(Response::new(PingResponse::default())),
        }
    })
}

fn calls_with_long_and_short_deadlines_share_a_connection(transport: Transport) {
    let served = Served::start(transport, never_answers().server());
    let mut client = Client::new(builder(&served).connect().unwrap());
    let timed = |message: &str, timeout: Duration| {
        let mut timed = Request::new(request(message));
        timed.set_timeout(timeout);
        timed
    };
    let (hour, second) = (Duration::from_secs(3_600), Duration::from_secs(1));
    client.ping(timed("", hour)).unwrap();
    for timeout in [Duration::from_millis(120), Duration::from_millis(20)] {
        let began = Instant::now();
        let status = client.ping(timed("wait", timeout)).unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(began.elapsed() >= timeout && began.elapsed() < hour, "{:?}", began.elapsed());
        client.ping(request("")).unwrap();
        client.ping(timed("", second)).unwrap();
        client.ping(timed("", hour)).unwrap();
    }
}

fn observers_are_told_in_order(transport: Transport) {
    let served = ping_server(transport);
    let notes = Notes::default();
    let mut channel = builder(&served).observer(notes.clone());
    let stats = channel.stats();
    let mut client = Client::new(channel.connect_lazy());
    let began = "began ping.v1.PingService/Ping 0 true";
    let ended = "ended ping.v1.PingService/Ping Ok 11 11";
    for _ in 0..2 {
        client.ping(PingRequest::ping()).unwrap();
    }
    assert_eq!(notes.all(), [began, "connecting", "opened 1", ended, began, ended]);
    let served = served.replace(Scripted::default().server());
    client.ping(PingRequest::ping()).unwrap();
    let end = notes.all()[7..].to_vec();
    let at = |note: &str| end.iter().position(|one| one == note).unwrap_or(usize::MAX);
    // The old connection may be over after the new one has begun.
    assert!(at("received go away 1 NO_ERROR") < at("closed 1 well"), "{end:?}");
    assert!(at("connecting") < at("opened 2"), "{end:?}");
    assert_eq!((end.len(), at(ended)), (5, 4), "{end:?}");
    drop(client);
    assert_eq!(notes.all().last().unwrap(), "closed 2 well");
    let snapshot = stats.snapshot();
    assert_eq!((snapshot.connections, snapshot.connections_opened), (0, 2));
    assert_eq!((snapshot.calls_in_flight, snapshot.calls_ended), (0, 3));
    let address = served.running.address.clone();
    let Served { runtime, running } = served;
    let _folder = runtime.block_on(running.stop());
    let notes = Notes::default();
    Channel::builder(&address).observer(notes.clone()).connect().unwrap_err();
    assert_eq!(notes.all(), ["connecting", "failed NoServer"]);
}

fn an_observer_is_told_how_each_kind_of_call_ended(transport: Transport) {
    let served = Served::start(transport, never_answers().server());
    let notes = Notes::default();
    let mut client = Client::new(builder(&served).observer(notes.clone()).connect().unwrap());
    let last = || notes.all().pop().unwrap();
    let mut late = Request::new(request("wait"));
    late.set_timeout(Duration::from_millis(300));
    client.ping(late).unwrap_err();
    assert_eq!(last(), "ended ping.v1.PingService/Ping DeadlineExceeded 11 0");
    let watch = WatchRequest { count: 3, ..WatchRequest::default() };
    assert_eq!(client.watch(watch.clone()).unwrap().into_inner().count(), 3);
    // The second and the third message have a sequence number of two bytes.
    assert_eq!(last(), "ended ping.v1.PingService/Watch Ok 7 37");
    drop(client.watch(WatchRequest { count: 0, ..watch }).unwrap());
    let early = last();
    assert!(early.starts_with("ended ping.v1.PingService/Watch Cancelled 5 "), "{early}");
    let ping = || CollectRequest { message: "ping".into(), ..Default::default() };
    client.collect(Request::new([ping(), ping()])).unwrap();
    assert_eq!(last(), "ended ping.v1.PingService/Collect Ok 22 7");
    // What is too large ends a call at this end.
    let mut limited = client.clone().max_encoding_message_size(20).max_decoding_message_size(10);
    let large = CollectRequest { payload: vec![0; 21].into(), ..ping() };
    let status = limited.collect(Request::new([ping(), large])).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert_eq!(last(), "ended ping.v1.PingService/Collect ResourceExhausted 11 0");
    let large = WatchRequest { count: 0, payload: vec![0; 11].into(), ..Default::default() };
    let mut watch = limited.watch(large).unwrap().into_inner();
    let status = watch.message().unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    drop(watch);
    let early = last();
    assert!(early.starts_with("ended ping.v1.PingService/Watch ResourceExhausted "), "{early}");
    let mut conversation = client.converse(()).unwrap();
    for message in ["ping", "no"] {
        let message = ConverseRequest { message: message.into(), ..Default::default() };
        conversation.send(&message).unwrap();
    }
    conversation.message().unwrap();
    conversation.message().unwrap_err();
    drop(conversation);
    assert_eq!(last(), "ended ping.v1.PingService/Converse InvalidArgument 20 11");
    let began = |note: &&String| note.starts_with("began");
    assert_eq!(notes.all().iter().filter(began).count(), 7);
}

/// How often each call was retried and sent again, and whether it waited.
#[derive(Clone, Default)]
struct Again(Arc<Mutex<Vec<(u32, u32, bool)>>>);

impl Observer for Again {
    fn observe(&self, event: &Event<'_>) {
        if let Event::CallEnded { end, .. } = event {
            let waited = end.waited() >= Duration::from_millis(1);
            self.0.lock().unwrap().push((end.retries(), end.resends(), waited));
        }
    }
}

fn an_observer_is_told_of_retries_and_resends(transport: Transport) {
    let (service, _) = failing(2, Code::Unavailable);
    let served = Served::start(transport, service.server());
    let again = Again::default();
    let slow = policy().backoff(Duration::from_millis(2), Duration::from_millis(2));
    let channel = builder(&served).retry(slow).observer(again.clone()).connect().unwrap();
    let mut client = Client::new(channel);
    client.ping(PingRequest::ping()).unwrap();
    assert_eq!(again.0.lock().unwrap().pop(), Some((2, 0, true)));
    let _served = served.replace(Scripted::default().server());
    client.ping(PingRequest::ping()).unwrap();
    let (retries, resends, _) = again.0.lock().unwrap().pop().unwrap();
    // TCP tells that the server has gone before the call is sent.
    let expected = u32::from(matches!(transport, Transport::Unix));
    assert_eq!((retries, resends), (0, expected));
}

/// Makes a call of its own at each event but the beginning of a call, and those of its own calls.
struct Uses {
    channel: Arc<OnceLock<Channel>>,
    calls: Arc<AtomicUsize>,
}

thread_local! {
    static WITHIN: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl Observer for Uses {
    fn observe(&self, event: &Event<'_>) {
        let Some(channel) = self.channel.get() else { return };
        if matches!(event, Event::CallBegan { .. }) {
            return;
        }
        if !WITHIN.replace(true) {
            let mut request = Request::new(PingRequest::ping());
            request.set_timeout(Duration::from_secs(10));
            let outcome = Client::new(channel.clone()).ping(request);
            match event {
                // It would wait for the connection that this thread is to open.
                Event::ConnectBegan { .. } | Event::ConnectionOpened { .. } => {
                    assert_eq!(outcome.unwrap_err().code(), Code::Unavailable);
                }
                _ => drop(outcome.unwrap()),
            }
            self.calls.fetch_add(1, Ordering::SeqCst);
            WITHIN.set(false);
        }
    }
}

fn an_observer_may_use_the_channel_within_each_event(transport: Transport) {
    for waits in [false, true] {
        let served = ping_server(transport);
        let (place, calls) = (Arc::new(OnceLock::new()), Arc::new(AtomicUsize::new(0)));
        let uses = Uses { channel: Arc::clone(&place), calls: Arc::clone(&calls) };
        let channel = builder(&served).wait_for_ready(waits).observer(uses).connect_lazy();
        place.set(channel.clone()).unwrap();
        let mut client = Client::new(channel);
        client.ping(PingRequest::ping()).unwrap();
        let calls = || calls.load(Ordering::SeqCst);
        assert_eq!(calls(), 3, "twice as it connected, and as the call ended");
        let _served = served.replace(Scripted::default().server());
        client.ping(PingRequest::ping()).unwrap();
        assert_eq!(calls(), 6, "at GOAWAY, at the connection's end, at the call's");
    }
}

struct Panics;

impl Observer for Panics {
    fn observe(&self, event: &Event<'_>) {
        panic!("at {event:?}");
    }
}

fn a_panicking_observer_harms_no_call(transport: Transport) {
    let served = ping_server(transport);
    let notes = Notes::default();
    let channel = builder(&served).observer(Panics).observer(notes.clone()).connect().unwrap();
    let mut client = Client::new(channel);
    for _ in 0..3 {
        assert_eq!(client.ping(PingRequest::ping()).unwrap().into_inner().message, "pong");
    }
    drop(client);
    assert_eq!(notes.all().len(), 3 + 2 * 3, "the others are told all: {:?}", notes.all());
}

fn a_call_has_a_span_within_its_callers(transport: Transport) {
    let served = ping_server(transport);
    let (spans, _guard) = Spans::start();
    let mut client = Client::new(builder(&served).trace_calls(true).connect().unwrap());
    tracing::info_span!("caller").in_scope(|| client.ping(PingRequest::ping()).unwrap());
    let [span] = &spans.named("call")[..] else { panic!("one call") };
    assert!(span.ended);
    assert_eq!(span.parent, Some("caller"));
    assert_eq!(span.fields["rpc.response.status_code"], "OK");
    let address = served.running.address.clone();
    let expected = address.as_path().map(|path| path.display().to_string());
    assert_eq!(span.fields["server.address"], expected.unwrap_or("127.0.0.1".to_owned()));
}

fn a_connection_has_a_span_of_its_own(transport: Transport) {
    const NAME: &str = "channel connection";
    let served = ping_server(transport);
    let (spans, _guard) = Spans::start();
    let mut client = Client::new(builder(&served).connect_lazy());
    tracing::info_span!("caller").in_scope(|| client.ping(PingRequest::ping()).unwrap());
    let [span] = &spans.named(NAME)[..] else { panic!("one connection") };
    assert!(!span.ended);
    assert_eq!(span.parent, None);
    let kind = if served.running.address.is_unix() { "unix" } else { "tcp" };
    assert_eq!(span.fields["network.transport"], kind);
    drop(client);
    assert!(spans.named(NAME)[0].ended);
}

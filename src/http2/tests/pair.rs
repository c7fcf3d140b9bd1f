//! A client and a server, joined by bytes that arrive in pieces of any size. Whatever they are
//! asked to do, nothing is lost, reordered or stuck, and no window is exceeded. At the end every
//! window is whole again.
//!
//! The steps are a script, so that a failure shrinks to a short one.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::task::Poll;
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;

use super::raw::{self, Frame, flag, kind};
use crate::http2::error::ErrorCode;
use crate::http2::key::StreamKey;
use crate::http2::send::Progress;
use crate::http2::{Body, Config, Connection, NotNow, Notice, ProtocolEvent, Read};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Client,
    Server,
}

/// One step of a script. A stream is named by its place among those that are open then.
#[derive(Clone, Debug)]
enum Step {
    /// The client sends a request, with a head of about this size.
    Request {
        head: u16,
        end: bool,
    },
    /// The server answers the oldest request that has no response.
    Respond {
        pick: u8,
        head: u16,
        end: bool,
    },
    Data {
        from: End,
        pick: u8,
        len: u32,
        end: bool,
    },
    Trailers {
        from: End,
        pick: u8,
        head: u16,
    },
    Reset {
        from: End,
        pick: u8,
    },
    Forget {
        from: End,
        pick: u8,
    },
    /// This many bytes cross.
    Carry {
        to: End,
        bytes: u32,
    },
    /// Events are taken, and data is read.
    Look {
        at: End,
        read: bool,
    },
    /// Data that was announced before is read.
    Read {
        at: End,
    },
    /// SETTINGS during a stream, written by hand.
    Settings {
        from: End,
        window: u32,
        frame: u32,
        table: u32,
    },
    Ping {
        from: End,
    },
    Shrink {
        at: End,
    },
    /// Begins to write all that waits at `from`.
    Take {
        from: End,
    },
    /// Ends that, when so many bytes are written.
    PutBack {
        to: End,
        written: u32,
    },
}

/// What one end has done and seen of a stream.
#[derive(Debug, Default)]
struct Seen {
    /// The data that was sent, and whether the message was ended.
    sent: Vec<u8>,
    sent_head: Option<Vec<u8>>,
    sent_trailers: Option<Vec<u8>>,
    sent_end: bool,
    /// The data that came.
    got: Vec<u8>,
    got_head: Option<Vec<u8>>,
    got_trailers: Option<Vec<u8>>,
    got_end: bool,
    reset: bool,
    /// Whether something came and was not read yet.
    unread: bool,
    queued: bool,
}

struct Side {
    end: End,
    connection: Connection,
    input: BytesMut,
    /// Bytes that are being written.
    taken: Option<BytesMut>,
    /// Bytes that the other side has written, and that are not here yet.
    wire: VecDeque<u8>,
    streams: BTreeMap<u32, Seen>,
    keys: BTreeMap<u32, StreamKey>,
    settings_sent: u32,
    pings: usize,
    /// What the other side may send by the rules: the connection's window, and each stream's.
    watch: Watch,
}

/// Counts beside the wire. It reads every frame that crosses, and does not depend on how the
/// connections work.
#[derive(Debug)]
struct Watch {
    pending: BytesMut,
    preface: usize,
    max_frame: u32,
    initial: i64,
    /// Values that the receiver has announced, and that are not acknowledged.
    announced: VecDeque<(Option<u32>, Option<u32>)>,
    connection: i64,
    streams: BTreeMap<u32, i64>,
}

impl Watch {
    fn new(preface: usize) -> Self {
        Self {
            pending: BytesMut::new(),
            preface,
            max_frame: 16_384,
            initial: 65_535,
            announced: VecDeque::new(),
            connection: 65_535,
            streams: BTreeMap::new(),
        }
    }

    /// Returns the frames that begin in the bytes that were just sent.
    fn frames(&mut self, bytes: &[u8]) -> Vec<Frame> {
        self.pending.extend_from_slice(bytes);
        let skip = self.preface.min(self.pending.len());
        self.pending.advance(skip);
        self.preface -= skip;
        std::iter::from_fn(|| Frame::take(&mut self.pending)).collect()
    }

    fn window(&mut self, stream: u32) -> &mut i64 {
        self.streams.entry(stream).or_insert(self.initial)
    }
}

impl Seen {
    fn take(&mut self, body: Body) {
        let Body::Whole(mut content) = body else { return };
        while let Some(piece) = content.pieces.pop() {
            self.got.extend_from_slice(&piece);
        }
        self.got_trailers = content.trailers.map(|trailers| flat(&trailers));
        self.got_end = true;
    }
}

impl Side {
    /// Reads everything that has come.
    fn read(&mut self, key: StreamKey) {
        let seen = self.streams.get_mut(&key.id()).expect("known");
        seen.unread = false;
        if self.end == End::Client && seen.got_head.is_none() {
            match self.connection.take_response(key) {
                Poll::Ready(Ok((head, body))) => {
                    seen.got_head = Some(flat(&head.headers));
                    seen.take(body);
                }
                Poll::Ready(Err(_)) => seen.reset = true,
                Poll::Pending => return,
            }
        }
        while !seen.got_end {
            match self.connection.read(key) {
                Read::Data(bytes) => seen.got.extend_from_slice(&bytes),
                Read::Trailers(headers) => {
                    seen.got_trailers = Some(flat(&headers));
                    seen.got_end = true;
                }
                Read::End => seen.got_end = true,
                Read::Failed(_) => {
                    seen.reset = true;
                    return;
                }
                Read::Pending | Read::Forgotten => return,
            }
        }
    }
}

/// Returns fields of about this size, which depend on the seed.
fn fields(size: u16, seed: u32) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert("x-seed", HeaderValue::from(seed));
    let mut left = usize::from(size);
    let mut n = 0;
    while left > 0 {
        let len = left.min(1_000);
        let name = HeaderName::try_from(format!("x-{}", (seed + n) % 40)).expect("a name");
        let byte = b'a' + ((seed + n) % 26) as u8;
        map.append(name, HeaderValue::from_bytes(&vec![byte; len]).expect("a value"));
        left -= len;
        n += 1;
    }
    map
}

/// Returns the fields in a form for comparison, in which the order of different names does not
/// matter.
fn flat(map: &HeaderMap) -> Vec<u8> {
    let mut lines: Vec<_> = map
        .iter()
        .map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec()))
        .collect();
    lines.sort_by(|a, b| a.0.cmp(&b.0));
    lines.into_iter().flat_map(|(name, value)| [name, value]).flatten().collect()
}

struct Pair {
    client: Side,
    server: Side,
    now: Instant,
    seed: u32,
}

impl Pair {
    fn new(client: Config, server: Config) -> Self {
        let now = Instant::now();
        let side = |end, connection, preface| Side {
            end,
            connection,
            input: BytesMut::new(),
            taken: None,
            wire: VecDeque::new(),
            streams: BTreeMap::new(),
            keys: BTreeMap::new(),
            settings_sent: 1,
            pings: 0,
            watch: Watch::new(preface),
        };
        Self {
            client: side(End::Client, Connection::client(client, now), 0),
            server: side(End::Server, Connection::server(server, now), 24),
            now,
            seed: 0,
        }
    }

    fn side(&mut self, end: End) -> &mut Side {
        match end {
            End::Client => &mut self.client,
            End::Server => &mut self.server,
        }
    }

    /// Returns `to`'s peer, and `to`.
    fn ends(&mut self, to: End) -> (&mut Side, &mut Side) {
        match to {
            End::Client => (&mut self.server, &mut self.client),
            End::Server => (&mut self.client, &mut self.server),
        }
    }

    /// Moves what `to`'s peer has to write onto the wire, and counts it.
    fn flush(&mut self, to: End) {
        self.put_back(to, usize::MAX);
        let (sender, receiver) = self.ends(to);
        while sender.connection.has_outgoing() {
            let mut slices = [IoSlice::new(&[]); 3];
            let count = sender.connection.outgoing(&mut slices);
            let bytes: Vec<u8> =
                slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
            sender.connection.advance(bytes.len());
            transmit(&bytes, sender, receiver);
        }
    }

    /// Moves as much of what is being written by `to`'s peer onto the wire.
    fn put_back(&mut self, to: End, written: usize) {
        let (sender, receiver) = self.ends(to);
        if let Some(mut bytes) = sender.taken.take() {
            let written = bytes.split_to(written.min(bytes.len()));
            sender.connection.put_back(bytes);
            transmit(&written, sender, receiver);
        }
    }

    fn carry(&mut self, to: End, bytes: usize) {
        self.flush(to);
        let now = self.now;
        let side = self.side(to);
        let bytes = bytes.min(side.wire.len());
        side.input.extend(side.wire.drain(..bytes));
        side.connection.receive(&mut side.input, now).expect("an honest peer");
    }

    fn pick(&mut self, end: End, pick: u8) -> Option<(u32, StreamKey)> {
        let side = self.side(end);
        let nth = usize::from(pick) % side.keys.len().max(1);
        side.keys.iter().nth(nth).map(|(id, key)| (*id, *key))
    }

    fn step(&mut self, step: &Step) {
        self.seed += 1;
        let seed = self.seed;
        match *step {
            Step::Request { head, end } => self.request(&fields(head, seed), end),
            Step::Respond { pick, head, end } => self.respond(pick, &fields(head, seed), end),
            Step::Data { from, pick, len, end } => self.data(from, pick, len, end),
            Step::Trailers { from, pick, head } => {
                self.trailers(from, pick, &fields(head, seed));
            }
            Step::Reset { from, pick } => {
                let Some((id, key)) = self.pick(from, pick) else {
                    return;
                };
                let side = self.side(from);
                side.connection.reset(key, ErrorCode::CANCEL);
                side.streams.get_mut(&id).expect("seen").reset = true;
            }
            Step::Forget { from, pick } => {
                let Some((id, key)) = self.pick(from, pick) else {
                    return;
                };
                self.forget(from, id, key);
            }
            Step::Carry { to, bytes } => self.carry(to, bytes as usize),
            Step::Look { at, read } => self.look(at, read),
            Step::Read { at } => {
                let side = self.side(at);
                for (id, key) in side.keys.clone() {
                    if side.streams.get(&id).expect("seen").unread {
                        side.read(key);
                    }
                }
            }
            Step::Settings { from, window, frame, table } => {
                self.settings(from, window, frame, table);
            }
            Step::Ping { from } => {
                let side = self.side(from);
                if side.pings < 100 {
                    side.pings += 1;
                    let ping = raw::ping((side.pings as u64).to_be_bytes());
                    ping.write(side.connection.write_buffer.buffer());
                }
            }
            Step::Shrink { at } => self.side(at).connection.trim(),
            Step::Take { from } => {
                let side = self.side(from);
                if side.taken.is_none() {
                    side.taken = side.connection.take_outgoing();
                }
            }
            Step::PutBack { to, written } => self.put_back(to, written as usize),
        }
    }

    fn request(&mut self, headers: &HeaderMap, end: bool) {
        let side = &mut self.client;
        match side.connection.send_request(raw::head(headers), end) {
            Ok(key) => {
                side.keys.insert(key.id(), key);
                let seen = side.streams.entry(key.id()).or_default();
                seen.sent_head = Some(flat(headers));
                seen.sent_end = end;
            }
            Err(not_now) => assert_eq!(not_now, NotNow::NoSlot),
        }
    }

    fn respond(&mut self, pick: u8, headers: &HeaderMap, end: bool) {
        let Some((id, key)) = self.pick(End::Server, pick) else {
            return;
        };
        let seen = self.server.streams.get_mut(&id).expect("seen");
        if seen.sent_head.is_some() || seen.reset {
            return;
        }
        let progress = self.server.connection.send_response(key, StatusCode::OK, headers, end);
        if progress != Progress::Closed {
            seen.sent_head = Some(flat(headers));
            seen.sent_end = end;
        }
    }

    fn data(&mut self, from: End, pick: u8, len: u32, end: bool) {
        let seed = self.seed;
        let Some((id, key)) = self.pick(from, pick) else {
            return;
        };
        let side = self.side(from);
        let seen = side.streams.get_mut(&id).expect("seen");
        // Like a driver, it sends nothing more before the queue is empty.
        if seen.sent_head.is_none() || seen.sent_end || seen.reset || seen.queued {
            return;
        }
        let payload: Vec<u8> = (0..len).map(|n| (n.wrapping_mul(31) + seed) as u8).collect();
        let bytes = Bytes::from(payload.clone());
        let progress = side.connection.send_data(key, bytes, end);
        if progress != Progress::Closed {
            seen.sent.extend_from_slice(&payload);
            seen.sent_end = end;
            seen.queued = progress == Progress::Queued;
        }
    }

    fn trailers(&mut self, from: End, pick: u8, trailers: &HeaderMap) {
        let Some((id, key)) = self.pick(from, pick) else {
            return;
        };
        let side = self.side(from);
        let seen = side.streams.get_mut(&id).expect("seen");
        if seen.sent_head.is_none() || seen.sent_end || seen.reset {
            return;
        }
        if side.connection.send_trailers(key, trailers) != Progress::Closed {
            seen.sent_trailers = Some(flat(trailers));
            seen.sent_end = true;
        }
    }

    fn settings(&mut self, from: End, window: u32, frame: u32, table: u32) {
        let side = self.side(from);
        if side.settings_sent > 40 {
            return;
        }
        side.settings_sent += 1;
        // They are written by hand, because a connection never changes its own settings, and are
        // within the limits that it uses as a receiver. `finish` restores the window.
        let window = window.min(side.connection.config.stream_window);
        let frame = frame.min(side.connection.config.max_frame_size);
        let frame = raw::settings(&[(1, table), (4, window), (5, frame)]);
        frame.write(side.connection.write_buffer.buffer());
    }

    fn forget(&mut self, from: End, id: u32, key: StreamKey) {
        let side = self.side(from);
        side.connection.forget(key);
        side.keys.remove(&id);
        let seen = side.streams.get_mut(&id).expect("seen");
        // If it was not complete on both sides, it ends here.
        if !(seen.got_end && seen.sent_end) {
            seen.reset = true;
        }
    }

    fn look(&mut self, at: End, read: bool) {
        let side = self.side(at);
        while let Some(event) = side.connection.poll_event() {
            match event {
                ProtocolEvent::Opened(key) => {
                    assert_eq!(side.end, End::Server);
                    let request = side.connection.take_request(key).expect("a request");
                    side.keys.insert(key.id(), key);
                    let seen = side.streams.entry(key.id()).or_default();
                    assert!(seen.got_head.is_none());
                    seen.got_head = Some(flat(&request.head.headers));
                    seen.take(request.body);
                    seen.unread = !seen.got_end;
                }
                ProtocolEvent::Readable(key) => {
                    let seen = side.streams.get_mut(&key.id()).expect("asked");
                    seen.unread = true;
                    if read {
                        side.read(key);
                    }
                }
                ProtocolEvent::Reset(key) => {
                    side.streams.get_mut(&key.id()).expect("known").reset = true;
                }
                ProtocolEvent::Writable(key) => {
                    let seen = side.streams.get_mut(&key.id()).expect("known");
                    assert!(seen.queued);
                    seen.queued = false;
                }
                ProtocolEvent::Ready | ProtocolEvent::SlotsAvailable | ProtocolEvent::GoAway => {}
            }
        }
    }

    /// Continues until nothing moves any more.
    fn settle(&mut self) {
        for turn in 0.. {
            assert!(turn < 2_000_000, "it never ends");
            let mut moved = false;
            for end in [End::Client, End::Server] {
                self.flush(end);
                let side = self.side(end);
                moved |= !side.wire.is_empty();
                self.carry(end, usize::MAX);
                self.look(end, true);
                self.step(&Step::Read { at: end });
                moved |= self.side(end).connection.has_outgoing();
            }
            if !moved {
                return;
            }
        }
    }

    /// Ends every stream in order, and checks the sums.
    fn finish(&mut self) {
        for side in [&mut self.client, &mut self.server] {
            let frame = raw::settings(&[(4, side.connection.config.stream_window)]);
            frame.write(side.connection.write_buffer.buffer());
        }
        self.settle();
        loop {
            let mut moved = false;
            for (id, key) in self.client.keys.clone() {
                let seen = self.client.streams.get_mut(&id).expect("seen");
                if !seen.sent_end && !seen.reset && !seen.queued {
                    seen.sent_end = true;
                    self.client.connection.send_data(key, Bytes::new(), true);
                    moved = true;
                }
            }
            for (id, key) in self.server.keys.clone() {
                let seen = self.server.streams.get_mut(&id).expect("seen");
                if seen.reset || seen.queued || seen.sent_end {
                    continue;
                }
                moved = true;
                if seen.sent_head.is_none() {
                    let headers = HeaderMap::new();
                    seen.sent_head = Some(Vec::new());
                    self.server.connection.send_response(key, StatusCode::OK, &headers, false);
                }
                let trailers = raw::map(&[("grpc-status", "0")]);
                seen.sent_trailers = Some(flat(&trailers));
                seen.sent_end = true;
                self.server.connection.send_trailers(key, &trailers);
            }
            self.settle();
            if !moved {
                break;
            }
        }
        self.check_messages();
        for end in [End::Client, End::Server] {
            for (id, key) in self.side(end).keys.clone() {
                self.forget(end, id, key);
            }
        }
        self.settle();
        self.check_ends();
        self.client.connection.go_away(Notice::Short);
        self.server.connection.go_away(Notice::Short);
        self.settle();
        assert!(self.client.connection.is_done() && self.server.connection.is_done());
    }

    /// Checks that nothing was lost or reordered.
    fn check_messages(&self) {
        let pairs = self.client.streams.iter().map(|(id, ours)| (id, ours, &self.server.streams));
        for (id, ours, theirs) in pairs {
            let Some(theirs) = theirs.get(id) else {
                assert!(ours.reset, "request {id} never came");
                continue;
            };
            let whole = !ours.reset && !theirs.reset;
            same(*id, ours, theirs, whole);
            same(*id, theirs, ours, whole);
        }
    }

    fn check_ends(&mut self) {
        for end in [End::Client, End::Server] {
            let side = self.side(end);
            let connection = &side.connection;
            assert_eq!(connection.active_streams(), 0);
            assert_eq!(connection.streams.open(), 0);
            assert_eq!(connection.queued_len(), 0);
            assert_eq!(connection.failure(), None);
            assert!(side.input.is_empty());
            assert_eq!(connection.received.unread(), 0, "{end:?}: bytes are missing");
        }
        // What each end believes that it may send is what the other believes that it may receive.
        let pairs = [(&self.client, &self.server), (&self.server, &self.client)];
        for (a, b) in pairs {
            assert_eq!(a.connection.outflow.available(), b.connection.receive_allowance() as usize);
            assert_eq!(b.watch.connection, i64::from(b.connection.receive_allowance()));
        }
    }
}

/// Checks that `to` got what `from` sent. If the stream was reset, it got the beginning.
fn same(id: u32, from: &Seen, to: &Seen, whole: bool) {
    if whole {
        assert_eq!(from.sent.len(), to.got.len(), "stream {id}");
        assert_eq!(from.sent_trailers, to.got_trailers, "stream {id}");
        assert!(from.sent_end && to.got_end, "stream {id} has no end: {from:?} {to:?}");
    }
    assert!(from.sent.starts_with(&to.got), "stream {id} differs");
    if let Some(head) = &to.got_head {
        assert_eq!(from.sent_head.as_ref(), Some(head), "stream {id}");
    }
}

/// Puts bytes onto the wire. `receiver.watch` holds what the receiver allows the sender.
fn transmit(bytes: &[u8], sender: &mut Side, receiver: &mut Side) {
    receiver.wire.extend(bytes);
    for frame in receiver.watch.frames(bytes) {
        account(frame, &mut receiver.watch, &mut sender.watch);
    }
}

/// Counts one frame. `allowed` is what its receiver allows its sender, `granted` what its sender
/// allows its receiver.
fn account(frame: Frame, allowed: &mut Watch, granted: &mut Watch) {
    let len = frame.payload.len() as u32;
    assert!(len <= allowed.max_frame, "a frame of {len}, {} allowed", allowed.max_frame);
    let first_u32 = || u32::from_be_bytes(frame.payload[..4].try_into().expect("four bytes"));
    match frame.kind {
        kind::DATA => {
            allowed.connection -= i64::from(len);
            *allowed.window(frame.stream) -= i64::from(len);
            if len > 0 {
                let stream = *allowed.window(frame.stream);
                assert!(allowed.connection >= 0 && stream >= 0, "a window is overdrawn");
            }
        }
        kind::WINDOW_UPDATE => {
            let increment = i64::from(first_u32());
            assert!(increment > 0);
            if frame.stream == 0 {
                granted.connection += increment;
                assert!(granted.connection <= 0x7fff_ffff);
            } else {
                *granted.window(frame.stream) += increment;
            }
        }
        kind::SETTINGS if frame.flags & flag::ACK == 0 => {
            let mut values = (None, None);
            for setting in frame.payload.chunks(6) {
                let value = u32::from_be_bytes(setting[2..].try_into().expect("four bytes"));
                match setting[..2] {
                    [0, 4] => values.0 = Some(value),
                    [0, 5] => values.1 = Some(value),
                    _ => {}
                }
            }
            granted.announced.push_back(values);
        }
        kind::SETTINGS => {
            // The sender uses the receiver's values from now on (§6.5.3).
            let (window, max_frame) =
                allowed.announced.pop_front().expect("something to acknowledge");
            if let Some(window) = window {
                let difference = i64::from(window) - allowed.initial;
                allowed.initial = i64::from(window);
                for stream in allowed.streams.values_mut() {
                    *stream += difference;
                }
            }
            if let Some(max_frame) = max_frame {
                allowed.max_frame = max_frame;
            }
        }
        _ => {}
    }
}

fn config() -> impl Strategy<Value = Config> {
    let window = prop_oneof![1..20u32, 1_000..100_000u32, Just(1 << 20)];
    let connection = prop_oneof![Just(65_535u32), 65_535..200_000u32, Just(4 << 20)];
    let frame = prop_oneof![Just(16_384u32), 16_384..70_000u32];
    (window, connection, frame, 1..20u32).prop_map(|(stream, connection, frame, streams)| Config {
        stream_window: stream,
        connection_window: connection,
        max_frame_size: frame,
        max_streams: streams,
        max_header_list_size: 1 << 20,
        ..Config::default()
    })
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Client), Just(End::Server)]
}

fn size() -> impl Strategy<Value = u16> {
    prop_oneof![4 => 0..100u16, 1 => 0..40_000u16]
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![3 => 0..50u32, 2 => 0..5_000u32, 1 => 0..200_000u32];
    let carry = prop_oneof![2 => 1..30u32, 2 => 1..20_000u32, 2 => Just(u32::MAX)];
    prop_oneof![
        6 => (size(), any::<bool>()).prop_map(|(head, end)| Step::Request { head, end }),
        6 => (any::<u8>(), size(), prop::bool::weighted(0.2))
            .prop_map(|(pick, head, end)| Step::Respond { pick, head, end }),
        12 => (end(), any::<u8>(), len, prop::bool::weighted(0.2))
            .prop_map(|(from, pick, len, end)| Step::Data { from, pick, len, end }),
        3 => (end(), any::<u8>(), size())
            .prop_map(|(from, pick, head)| Step::Trailers { from, pick, head }),
        1 => (end(), any::<u8>()).prop_map(|(from, pick)| Step::Reset { from, pick }),
        1 => (end(), any::<u8>()).prop_map(|(from, pick)| Step::Forget { from, pick }),
        20 => (end(), carry.clone()).prop_map(|(to, bytes)| Step::Carry { to, bytes }),
        10 => (end(), any::<bool>()).prop_map(|(at, read)| Step::Look { at, read }),
        4 => end().prop_map(|at| Step::Read { at }),
        1 => (end(), size(), 16_384..40_000u32, 0..5_000u32).prop_map(
            |(from, window, frame, table)| Step::Settings {
                from,
                window: u32::from(window),
                frame,
                table,
            }
        ),
        1 => end().prop_map(|from| Step::Ping { from }),
        1 => end().prop_map(|at| Step::Shrink { at }),
        6 => end().prop_map(|from| Step::Take { from }),
        4 => (end(), carry).prop_map(|(to, written)| Step::PutBack { to, written }),
    ]
}

fn run(client: Config, server: Config, steps: &[Step]) {
    let mut pair = Pair::new(client, server);
    for step in steps {
        pair.step(step);
    }
    pair.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_of_two_ends_nothing_is_lost_reordered_or_stuck(
        client in config(),
        server in config(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        run(client, server, &steps);
    }
}

//! RFC 9113 §5.1 and §5.4: stream states, identifiers, and frames for streams that have ended.

use std::collections::BTreeMap;

use http::{HeaderMap, StatusCode};
use proptest::prelude::*;

use super::raw::*;
use super::seen::Event;
use crate::http2::closed::MAX_REMEMBERED;
use crate::http2::error::ErrorCode;
use crate::http2::flow::{ReceiveWindow, SendWindow};
use crate::http2::stream::{Stream, Streams};
use crate::http2::{Config, NotNow};

const PROTOCOL_ERROR: ErrorCode = ErrorCode::PROTOCOL_ERROR;
const STREAM_CLOSED: ErrorCode = ErrorCode::STREAM_CLOSED;

#[test]
fn only_headers_and_priority_may_come_on_an_idle_stream() {
    for frame in [data(1, "x", true), rst(1, ErrorCode::CANCEL), window_update(1, 9)] {
        Tested::server().fails(PROTOCOL_ERROR, std::slice::from_ref(&frame));
        Tested::client().fails(PROTOCOL_ERROR, &[frame]);
    }
    Tested::client().fails(PROTOCOL_ERROR, &[headers(1, response_block(), true)]);
}

/// gRPC's C core (C++ 1.51, grpcio 1.62) resets the streams of calls that were given up before their
/// HEADERS were written. It tells who it is by a setting of its own.
#[test]
fn the_c_core_may_reset_a_stream_that_it_never_opened() {
    const TRUE_BINARY_METADATA: u16 = 0xfe03;
    let mut server = Tested::server();
    server.accept(&[settings(&[(TRUE_BINARY_METADATA, 1)])]);
    server.frames();
    // Its first call, and a later one while another call goes on.
    assert!(server.accept(&[rst(1, ErrorCode::CANCEL)]).is_empty());
    let key = server.request_on(3, false);
    assert!(server.accept(&[rst(9, ErrorCode::CANCEL), rst(7, ErrorCode::CANCEL)]).is_empty());
    assert!(server.frames().is_empty());
    assert_eq!(server.accept(&[data(3, "abc", true)]).len(), 1);
    server.answer(key, b"def");
    server.request_on(11, true);
    // The rest of the rule holds, and such frames are not free.
    server.fails(PROTOCOL_ERROR, &[rst(14, ErrorCode::CANCEL)]);
    let mut server = Tested::server();
    server.accept(&[settings(&[(TRUE_BINARY_METADATA, 1)])]);
    server.fails(ErrorCode::ENHANCE_YOUR_CALM, &vec![rst(1, ErrorCode::CANCEL); 8_193]);
    let mut client = Tested::client_with(Config::default(), &[(TRUE_BINARY_METADATA, 1)]);
    client.fails(PROTOCOL_ERROR, &[rst(1, ErrorCode::CANCEL)]);
}

#[test]
fn streams_of_the_servers_number_are_never_open() {
    for frame in [request(2, true), data(2, "x", true), window_update(2, 5)] {
        let mut server = Tested::server();
        server.open_request(false);
        server.fails(PROTOCOL_ERROR, &[frame]);
    }
    let mut client = Tested::client();
    client.start_request(true);
    client.fails(PROTOCOL_ERROR, &[headers(2, response_block(), true)]);
}

#[test]
fn identifiers_only_rise() {
    let mut server = Tested::server();
    server.accept(&[request(5, true)]);
    server.fails(PROTOCOL_ERROR, &[request(3, true)]);
    // An identifier that was skipped between two others.
    let mut server = Tested::server();
    server.accept(&[request(1, true), request(5, true), request(7, true)]);
    server.fails(PROTOCOL_ERROR, &[request(3, true)]);
}

#[test]
fn after_its_end_a_request_takes_neither_data_nor_headers() {
    let mut server = Tested::server();
    let key = server.open_request(true);
    server.resets_known(key, STREAM_CLOSED, &[data(1, "x", false)]);
    let key = server.request_on(3, true);
    server.resets_known(key, STREAM_CLOSED, &[headers(3, trailers_block(), true)]);
    // Frames that concern our half are accepted.
    let key = server.request_on(5, true);
    assert!(server.accept(&[window_update(5, 9), frame(kind::PRIORITY, 0, 5, [0; 5])]).is_empty());
    assert!(matches!(&server.accept(&[rst(5, ErrorCode::CANCEL)])[..],
        [Event::Stopped { stream }] if *stream == key));
}

#[test]
fn a_stream_that_both_ends_ended_takes_no_data_and_no_headers() {
    for frame in [data(1, "x", false), headers(1, request_block(), true)] {
        for forgotten in [false, true] {
            let mut server = Tested::server();
            let key = server.open_request(true);
            server.connection.send_response(key, StatusCode::OK, &HeaderMap::new(), true);
            if forgotten {
                server.connection.forget(key);
            }
            assert!(server.accept(&[window_update(1, 9), rst(1, ErrorCode::CANCEL)]).is_empty());
            server.fails(STREAM_CLOSED, std::slice::from_ref(&frame));
        }
    }
}

#[test]
fn a_stream_that_the_peer_reset_takes_no_headers() {
    let continued = frame(kind::HEADERS, 0, 1, request_block());
    let more = frame(kind::CONTINUATION, flag::END_HEADERS, 1, []);
    for frames in [&[headers(1, request_block(), true)][..], &[continued, more]] {
        let mut server = Tested::server();
        server.accept(&[request(1, false), rst(1, ErrorCode::CANCEL)]);
        server.fails(STREAM_CLOSED, frames);
    }
}

/// grpc-java (netty) sends what it had queued after its own reset.
#[test]
fn data_after_the_peers_reset_is_answered_once_and_ignored() {
    for (taken, forgotten) in [(false, true), (true, false), (true, true)] {
        let config = Config { stream_window: 100_000, ..Config::default() };
        let mut server = Tested::server_with(config);
        if taken {
            let key = server.open_request(false);
            server.accept(&[rst(1, ErrorCode::CANCEL)]);
            if forgotten {
                server.connection.forget(key);
            }
        } else {
            let frames = [request(1, false), rst(1, ErrorCode::CANCEL)];
            assert!(server.accept(&frames).is_empty());
        }
        server.frames();
        assert!(server.accept(&[data(1, [0; 10_000], false)]).is_empty());
        assert_eq!(server.frames(), [rst(1, STREAM_CLOSED)]);
        for _ in 1..10 {
            assert!(server.accept(&[data(1, [0; 10_000], false)]).is_empty());
        }
        assert_eq!(server.connection.received.unread(), 0);
        assert!(server.frames().iter().all(|frame| frame.stream == 0), "window updates");
        server.request_on(3, true);
        server.fails(ErrorCode::FLOW_CONTROL_ERROR, &[data(1, [0; 1], false)]);
    }
}

/// The response came before the request's end, and crossed the client's reset.
#[test]
fn data_after_the_resets_of_both_ends_is_ignored() {
    for forgotten in [false, true] {
        let mut server = Tested::server();
        let key = server.open_request(false);
        server.connection.reset(key, ErrorCode::NO_ERROR);
        if forgotten {
            server.connection.forget(key);
        }
        server.frames();
        let frames = [rst(1, ErrorCode::CANCEL), data(1, "x", false), data(1, "y", true)];
        assert!(server.accept(&frames).is_empty());
        assert!(server.frames().is_empty());
        server.fails(STREAM_CLOSED, &[data(1, "z", false)]);
    }
}

#[test]
fn frames_under_way_on_a_stream_that_we_reset_are_ignored() {
    for forgotten in [false, true] {
        let mut server = Tested::server();
        let key = server.open_request(false);
        server.connection.reset(key, ErrorCode::CANCEL);
        if forgotten {
            server.connection.forget(key);
            assert_eq!(server.connection.active_streams(), 0);
        }
        assert_eq!(server.frames(), [rst(1, ErrorCode::CANCEL)]);
        // The header block is decoded: it adds x: y to the table.
        let trailers = [0x40, 1, b'x', 1, b'y'];
        let events = server.accept(&[
            data(1, "late", false),
            window_update(1, 10),
            headers(1, trailers, true),
            rst(1, ErrorCode::CANCEL),
        ]);
        assert!(events.is_empty(), "{events:?}");
        assert!(server.frames().is_empty());
        let mut next = request_block();
        next.push(0x80 | 62);
        let events = server.accept(&[headers(3, next, true)]);
        assert!(matches!(&events[..], [Event::Request { head, .. }] if head.headers["x"] == "y"));
        // The END_STREAM was the last frame that could be under way.
        server.fails(STREAM_CLOSED, &[data(1, "x", false)]);
    }
}

#[test]
fn after_the_end_of_data_nothing_can_be_under_way_on_a_stream_that_we_reset() {
    for forgotten in [false, true] {
        let mut server = Tested::server();
        let key = server.open_request(false);
        server.connection.reset(key, ErrorCode::CANCEL);
        if forgotten {
            server.connection.forget(key);
        }
        server.frames();
        server.accept(&[data(1, "late", false), data(1, "later", true)]);
        server.fails(STREAM_CLOSED, &[data(1, "too late", false)]);
    }
}

#[test]
fn a_server_may_send_trailers_twice() {
    for (reset, forgotten) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut client = Tested::client();
        let key = client.start_request(true);
        client.accept(&[headers(1, response_block(), false)]);
        if reset {
            client.connection.reset(key, ErrorCode::CANCEL);
            client.frames();
        }
        let end = || [headers(1, trailers_block(), true), rst(1, ErrorCode::NO_ERROR)];
        assert_eq!(client.accept(&end()).len(), usize::from(!reset));
        if forgotten {
            client.connection.forget(key);
        }
        assert!(client.accept(&end()).is_empty());
        assert!(client.frames().is_empty());
        // Only trailers are accepted, and only a limited number.
        client.fails(STREAM_CLOSED, &[data(1, "x", false)]);
    }
}

#[test]
fn a_request_that_had_ended_when_it_was_reset_takes_nothing_more() {
    let mut server = Tested::server();
    let key = server.open_request(true);
    server.connection.reset(key, ErrorCode::CANCEL);
    server.connection.forget(key);
    server.frames();
    server.fails(STREAM_CLOSED, &[data(1, "too late", false)]);
}

#[test]
fn data_on_a_stream_that_we_reset_gives_the_connections_window_back() {
    let mut server = Tested::server();
    let key = server.open_request(false);
    server.send(&[data(1, [0; 1_000], false)]).expect("a request");
    server.connection.reset(key, ErrorCode::CANCEL);
    server.send(&[data(1, [0; 1_000], false)]).expect("under way");
    assert_eq!(server.connection.received.unread(), 1_000);
    server.connection.forget(key);
    assert_eq!(server.connection.received.unread(), 0);
    server.send(&[data(1, [0; 1_000], true)]).expect("under way");
    assert_eq!(server.connection.received.unread(), 0);
}

#[test]
fn a_peer_that_goes_on_after_a_reset_beyond_its_window_is_stopped() {
    for forgotten in [false, true] {
        let config = Config { stream_window: 100_000, ..Config::default() };
        let mut server = Tested::server_with(config);
        let key = server.open_request(false);
        server.connection.reset(key, ErrorCode::CANCEL);
        if forgotten {
            server.connection.forget(key);
        }
        server.frames();
        for _ in 0..10 {
            server.accept(&[data(1, [0; 10_000], false)]);
        }
        server.fails(ErrorCode::FLOW_CONTROL_ERROR, &[data(1, [0; 1], false)]);
    }
}

#[test]
fn streams_that_we_reset_are_remembered_within_bounds_and_forgotten_kindly() {
    let mut server = Tested::server();
    let many = 3 * MAX_REMEMBERED as u32;
    for n in 0..many {
        let key = server.request_on(2 * n + 1, false);
        server.connection.forget(key);
        server.now += std::time::Duration::from_millis(10);
    }
    assert!(server.connection.closed.remembered() <= MAX_REMEMBERED);
    assert_eq!(server.frames().len(), many as usize);
    // The first one is no longer remembered, the last one is. Data may have been under way on both.
    assert!(server.accept(&[data(1, "late", false), data(2 * many - 1, "late", false)]).is_empty());
    assert!(server.frames().is_empty());
}

#[test]
fn requests_above_the_limit_are_refused_and_their_data_ignored() {
    let config = Config { max_streams: 2, max_lingering: 0, ..Config::default() };
    let mut server = Tested::server_with(config);
    let key = server.open_request(true);
    server.request_on(3, false);
    let frames = [request(5, false), data(5, "x", false), data(5, "", true)];
    let events = server.resets(5, ErrorCode::REFUSED_STREAM, &frames);
    assert!(events.is_empty());
    // It has ended on the wire, but its handler still runs.
    server.accept(&[rst(1, ErrorCode::CANCEL)]);
    server.resets(7, ErrorCode::REFUSED_STREAM, &[request(7, true)]);
    server.connection.forget(key);
    server.request_on(9, true);
}

#[test]
fn a_few_cancelled_calls_whose_handlers_still_run_do_not_count() {
    let config = Config { max_streams: 2, max_lingering: 1, ..Config::default() };
    let mut server = Tested::server_with(config);
    server.request_on(1, true);
    server.request_on(3, true);
    server.accept(&[rst(1, ErrorCode::CANCEL)]);
    server.request_on(5, true);
    server.accept(&[rst(3, ErrorCode::CANCEL)]);
    server.resets(7, ErrorCode::REFUSED_STREAM, &[request(7, true)]);
}

#[test]
fn a_request_reset_before_anybody_looked_is_never_seen() {
    let mut server = Tested::server();
    let events = server.accept(&[
        request(1, false),
        data(1, "abc", false),
        rst(1, ErrorCode::CANCEL),
        request(3, true),
    ]);
    assert!(matches!(&events[..], [Event::Request { stream, .. }] if stream.id() == 3));
    assert_eq!(server.connection.active_streams(), 1);
    assert_eq!(server.connection.received.unread(), 0);
}

#[test]
fn a_key_never_names_another_stream() {
    let mut server = Tested::server();
    let old = server.open_request(true);
    server.connection.forget(old);
    let new = server.request_on(3, true);
    assert_eq!(old.index(), new.index(), "the slot is used again");
    server.frames();
    server.connection.reset(old, ErrorCode::CANCEL);
    server.connection.forget(old);
    assert!(matches!(server.connection.read(old), crate::http2::Read::Forgotten));
    assert!(server.frames().is_empty());
    assert_eq!(server.connection.active_streams(), 1);
}

#[test]
fn a_client_waits_for_a_slot() {
    let mut client = Tested::client_with(Config::default(), &[(3, 1)]);
    let first = client.start_request(true);
    let headers = HeaderMap::new();
    assert_eq!(client.connection.send_request(head(&headers), true), Err(NotNow::NoSlot));
    assert!(client.frames().is_empty());
    let events = client.accept(&[super::raw::headers(1, response_block(), true)]);
    assert!(matches!(&events[..], [Event::Response { end: true, .. }, Event::SlotsAvailable]));
    client.connection.forget(first);
    client.start_request(true);
    assert_eq!(client.connection.send_request(head(&headers), true), Err(NotNow::NoSlot));
    let events = client.accept(&[settings(&[(3, 5)])]);
    assert!(matches!(&events[..], [Event::SlotsAvailable]));
    client.start_request(true);
}

#[test]
fn a_client_assumes_100_slots_until_it_is_told() {
    let now = std::time::Instant::now();
    let mut client = crate::http2::Connection::client(Config::default(), now);
    let headers = HeaderMap::new();
    for _ in 0..100 {
        client.send_request(head(&headers), true).expect("a slot");
    }
    assert_eq!(client.send_request(head(&headers), true), Err(NotNow::NoSlot));
    let mut client = Tested { connection: client, now, input: Default::default() };
    let events = client.accept(&[settings(&[])]);
    assert!(matches!(&events[..], [Event::Ready, Event::SlotsAvailable]));
}

#[test]
fn a_client_runs_out_of_identifiers() {
    let mut client = Tested::client();
    client.connection.client.next_id = 0x7fff_ffff;
    let key = client.start_request(true);
    assert_eq!(key.id(), 0x7fff_ffff);
    let headers = HeaderMap::new();
    assert_eq!(client.connection.send_request(head(&headers), true), Err(NotNow::TakesNoRequests));
    let events = client.accept(&[super::raw::headers(0x7fff_ffff, response_block(), true)]);
    assert_eq!(events.len(), 1);
}

#[test]
fn a_client_does_not_send_headers_that_the_server_will_not_take() {
    let mut client = Tested::client_with(Config::default(), &[(6, 250)]);
    let headers = map(&[("x", &"y".repeat(100))]);
    assert_eq!(
        client.connection.send_request(head(&headers), true),
        Err(NotNow::TooLarge { limit: 250 })
    );
    client.start_request(true);
}

/// The answer is still in the write buffer. For the client the call has ended (RFC 9113 §5.1.2).
#[test]
fn a_cancelled_call_whose_answer_is_not_written_leaves_its_slot() {
    // The server answers after the whole request, or before its end.
    for whole in [true, false] {
        let config = Config { max_streams: 1, max_lingering: 0, ..Config::default() };
        let mut server = Tested::server_with(config);
        for (id, takes) in [(1, true), (3, true), (5, false)] {
            let events = server.accept(&[request(id, whole)]);
            let [Event::Request { stream, .. }] = events[..] else {
                assert!(!takes, "{id}: {events:?}");
                continue;
            };
            assert!(takes, "only so many answers are kept");
            server.answer(stream, b"x");
            let budget = server.connection.budget.left();
            server.accept(&[rst(id, ErrorCode::CANCEL)]);
            assert_eq!(server.connection.budget.left(), budget);
            server.accept(&[rst(id, ErrorCode::CANCEL)]);
            assert!(server.connection.budget.left() < budget, "once is enough");
        }
        server.frames();
        assert_eq!(server.connection.server.unwritten.cancelled(), 0);
        assert!(matches!(server.accept(&[request(7, whole)])[..], [Event::Request { .. }]));
    }
}

proptest! {
    #[test]
    fn the_table_finds_every_stream_however_they_come_and_go(
        steps in prop::collection::vec((any::<bool>(), 1..40u32), 1..200),
    ) {
        let mut streams = Streams::default();
        let mut model = BTreeMap::new();
        let mut id = 1;
        for (insert, by) in steps {
            if insert {
                id += 2 * by;
                let (send, receive) = (SendWindow::new(0), ReceiveWindow::new(0));
                model.insert(id, streams.insert(Stream::new(id, send, receive)));
            } else if let Some(id) = model.keys().nth(by as usize % model.len().max(1)).copied() {
                // Streams are removed from both ends of the list, so that some last long.
                streams.remove(model.remove(&id).expect("in the model"));
                prop_assert_eq!(streams.find(id), None);
            }
            for (id, key) in &model {
                prop_assert_eq!(streams.find(*id), Some(*key));
                prop_assert_eq!(streams.get(*key).map(|stream| stream.id), Some(*id));
            }
            prop_assert_eq!(streams.len(), model.len());
            prop_assert_eq!(streams.find(id + 2), None);
            prop_assert_eq!(streams.keys().len(), model.len());
            prop_assert!(streams.far_len() <= model.len());
        }
    }
}

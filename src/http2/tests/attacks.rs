//! One peer against each limit: it gets the right error, and meanwhile uses no more memory than
//! promised.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::raw::*;
use super::seen::Event;
use crate::http2::budget;
use crate::http2::closed::MAX_REMEMBERED;
use crate::http2::connection::MAX_CONTROL;
use crate::http2::connection_end::SHUTDOWN_PING;
use crate::http2::error::{Cause, ConnectionError, ErrorCode};
use crate::http2::send::HIGH_WATER;
use crate::http2::sides::{MAX_FIELDS, MAX_OPENED};
use crate::http2::time::KEEP_ALIVE_PING;
use crate::http2::{Config, Connection, ReceiveOutcome};

/// Sends frames until the connection ends. Returns how many that took. Reads the answers, and takes
/// the events as a driver does.
#[track_caller]
fn flood(tested: &mut Tested, mut frames: impl FnMut(u32) -> Vec<Frame>) -> (u32, ConnectionError) {
    for n in 0..1_000_000 {
        if let Err(error) = tested.send(&frames(n)) {
            tested.failed(error.code, error);
            return (n, error);
        }
        tested.events();
        bounded(&tested.connection);
        tested.frames();
    }
    panic!("it goes on forever");
}

/// Checks what a connection holds beside the data of its streams.
#[track_caller]
fn bounded(connection: &Connection) {
    let config = &connection.config;
    let streams = (config.max_streams + config.max_lingering) as usize;
    assert!(connection.active_streams() <= streams);
    assert!(connection.closed.remembered() <= MAX_REMEMBERED);
    assert!(connection.outgoing_len() <= MAX_CONTROL + HIGH_WATER + 65_536);
    assert!(connection.outflow.ready_len() <= 2 * streams + 32);
    assert!(connection.events.len() <= 2 * streams + 32);
}

#[track_caller]
fn calm(result: (u32, ConnectionError), at_most: u32) {
    let (frames, error) = result;
    assert_eq!((error.code, error.cause), (ErrorCode::ENHANCE_YOUR_CALM, Cause::Limit), "{error}");
    assert!(frames <= at_most, "{frames} were let through");
}

#[test]
fn floods_of_frames_that_advance_nothing() {
    let unknown = frame(0x42, 0, 0, [0; 30]);
    let priority_update = frame(0x10, 0, 0, [0, 0, 0, 1, b'u', b'=', b'1']);
    let priority = frame(kind::PRIORITY, 0, 1, [0, 0, 0, 9, 16]);
    let ack = |payload| frame(kind::PING, flag::ACK, 0, payload);
    let floods = [
        ping([7; 8]),
        ack([9; 8]),
        ack(SHUTDOWN_PING),
        ack(KEEP_ALIVE_PING),
        unknown,
        priority_update,
        priority,
        settings_ack(),
        window_update(0, 1),
        window_update(1, 1),
        data(1, [], false),
        frame(kind::DATA, flag::PADDED, 1, [5, 0, 0, 0, 0, 0]),
    ];
    for flood_frame in floods {
        let mut server = Tested::server();
        server.open_request(false);
        calm(flood(&mut server, |_| vec![flood_frame.clone()]), budget::CAPACITY + 1);
    }
}

#[test]
fn a_flood_of_settings() {
    let mut server = Tested::server();
    calm(flood(&mut server, |n| vec![settings(&[(4, n), (1, n)])]), budget::CAPACITY / 16 + 1);
    // Thousands of values in one frame are one change.
    let many: Vec<_> = (0..2_700).map(|n| (4, n % 3)).collect();
    let mut server = Tested::server();
    for id in 0..200 {
        server.request_on(2 * id + 1, false);
    }
    calm(flood(&mut server, |_| vec![settings(&many)]), budget::CAPACITY / 16 + 1);
}

#[test]
fn a_flood_that_time_does_not_pay_for() {
    let mut server = Tested::server();
    let start = server.now;
    for n in 0u32.. {
        // This is 10,000 a second.
        server.now = start + Duration::from_micros(100) * n;
        if let Err(error) = server.send(&[ping([7; 8])]) {
            assert_eq!(error.code, ErrorCode::ENHANCE_YOUR_CALM);
            return;
        }
        assert!(n < 12_000, "it goes on forever");
        server.frames();
    }
}

/// Opens a stream and resets it in one read, so that its request is never seen. The turn limits
/// what that costs.
#[test]
fn rapid_reset_is_taken_turn_by_turn() {
    let mut server = Tested::server();
    for n in 0..10_000 {
        for frame in [request(2 * n + 1, true), rst(2 * n + 1, ErrorCode::CANCEL)] {
            frame.write(&mut server.input);
        }
    }
    let mut turns = 1;
    loop {
        let before = server.connection.server.last_id;
        let received = server.connection.receive(&mut server.input, server.now);
        let opened = (server.connection.server.last_id.max(1) - before.max(1)).div_ceil(2);
        assert!(opened <= MAX_OPENED, "{opened} in one turn");
        assert!(server.connection.poll_event().is_none());
        bounded(&server.connection);
        match received.expect("no offence") {
            ReceiveOutcome::Some => turns += 1,
            ReceiveOutcome::All => break,
        }
    }
    assert!(server.input.is_empty());
    assert_eq!(turns, 10_000u32.div_ceil(MAX_OPENED));
    assert_eq!(server.connection.active_streams(), 0);
    assert_eq!(server.connection.budget.left(), budget::CAPACITY);
}

/// A field that is in the table takes one byte. The number of fields limits what is decoded in a
/// turn.
#[test]
fn heads_of_many_fields_are_decoded_a_few_in_a_turn() {
    let mut server = Tested::server();
    // The first request puts a field into the table, and each request refers to it 400 times.
    let mut first = request_block();
    first.extend_from_slice(&[0x40, 1, b'a', 1, b'b']);
    let mut heavy = request_block();
    heavy.extend_from_slice(&[0x80 | 62; 400]);
    headers(1, first, true).write(&mut server.input);
    for n in 1..60 {
        headers(2 * n + 1, &heavy, true).write(&mut server.input);
    }
    let mut turns = 0;
    loop {
        turns += 1;
        let before = server.connection.active_streams();
        let received = server.connection.receive(&mut server.input, server.now);
        let opened = server.connection.active_streams() - before;
        // One more than fits, and the light one.
        assert!(opened <= MAX_FIELDS as usize / 400 + 2, "{opened} in one turn");
        if received.expect("no offence") == ReceiveOutcome::All {
            break;
        }
    }
    assert_eq!(server.connection.active_streams(), 60);
    assert!(turns >= 5, "{turns}");
}

/// Frames that are left for the next turn are no delay of the peer.
#[test]
fn what_is_left_for_the_next_turn_is_no_unfinished_frame() {
    let mut server = Tested::server();
    for n in 0..=MAX_OPENED {
        for frame in [request(2 * n + 1, true), rst(2 * n + 1, ErrorCode::CANCEL)] {
            frame.write(&mut server.input);
        }
    }
    let received = server.connection.receive(&mut server.input, server.now);
    assert_eq!(received, Ok(ReceiveOutcome::Some));
    server.connection.note_time(server.now);
    assert_eq!(server.connection.next_timeout(), None);
}

/// Calls that are cancelled while their handlers run, and handlers that ignore it. Each counts
/// until its handler has ended, so that no more than the limit and a few run at a time.
#[test]
fn cancelled_calls_count_until_their_handlers_have_ended() {
    let mut server = Tested::server();
    let mut running = std::collections::VecDeque::new();
    let mut refused = 0;
    for n in 0..100_000 {
        let id = 2 * n + 1;
        let opened = server.accept(&[request(id, true)]);
        server.accept(&[rst(id, ErrorCode::CANCEL)]);
        running.extend(opened.iter().filter_map(|event| match event {
            Event::Request { stream, .. } => Some(*stream),
            _ => None,
        }));
        refused += server.frames().len();
        bounded(&server.connection);
        // Some handlers end.
        if n % 10 == 0
            && let Some(ended) = running.pop_front()
        {
            server.connection.forget(ended);
        }
    }
    assert!(refused > 80_000, "{refused} were refused");
    // The peer cannot know what still runs, so a refusal for that reason is not its fault.
    assert_eq!(server.connection.budget.left(), budget::CAPACITY);
}

#[test]
fn provoked_resets() {
    let violations: [fn(u32) -> Frame; 4] = [
        |id| headers(id, block(&[("a", b"b")]), true),
        |id| window_update(id, 0),
        |id| data(id, "x", false),
        |id| headers(id, trailers_block(), false),
    ];
    for (n, violation) in violations.iter().enumerate() {
        let mut server = Tested::server();
        let mut id = 1;
        let mut count = 0;
        let error = loop {
            let mut frames = vec![violation(id)];
            if n > 0 {
                frames.insert(0, request(id, n < 3));
            }
            if let Err(error) = server.send(&frames) {
                break error;
            }
            for event in server.events() {
                if let Event::Request { stream, .. } = event {
                    server.connection.forget(stream);
                }
            }
            bounded(&server.connection);
            server.frames();
            id += 2;
            count += 1;
            assert!(count < budget::CAPACITY / 8 + 10, "it goes on forever");
        };
        calm((count, error), budget::CAPACITY / 8 + 1);
    }
}

#[test]
fn ten_thousand_streams_at_once() {
    let mut server = Tested::server();
    let result = flood(&mut server, |n| vec![request(2 * n + 1, false)]);
    calm(result, 256 + budget::CAPACITY / 3 + 1);
    assert!(server.connection.active_streams() <= 256);
}

#[test]
fn requests_beyond_the_limit_while_no_setting_is_acknowledged_are_bounded_by_time() {
    let mut server = Tested::greeted_server(Config::default());
    server.accept(&[settings(&[])]);
    for n in 0..50_000 {
        server.send(&[request(2 * n + 1, false)]).expect("refused, and not counted");
        server.events();
        server.frames();
        bounded(&server.connection);
    }
    server.pass(Duration::from_secs(5));
    let error = server.connection.on_timeout(server.now).expect_err("never acknowledged");
    assert_eq!(error.code, ErrorCode::SETTINGS_TIMEOUT);
}

#[test]
fn answers_that_are_never_read() {
    // Refusals cost nothing before the acknowledgement, but their bytes do.
    let mut server = Tested::greeted_server(Config::default());
    server.accept(&[settings(&[])]);
    for n in 0.. {
        if let Err(error) = server.send(&[request(2 * n + 1, true)]) {
            assert_eq!((error.code, error.cause), (ErrorCode::ENHANCE_YOUR_CALM, Cause::Limit));
            break;
        }
        server.events();
        assert!(server.connection.outgoing_len() <= MAX_CONTROL + 64, "{n}");
        if n == 5_000 {
            // The peer reads a byte now and then, which does not make the rest smaller.
            server.connection.advance(1);
        }
    }
}

#[test]
fn answers_of_heads_alone_that_are_never_read() {
    // Every call is complete at once, and earns budget. The point is that the peer cannot know the
    // limit.
    let mut server = Tested::server();
    for n in 0.. {
        match server.send(&[request(2 * n + 1, true)]) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.code, ErrorCode::ENHANCE_YOUR_CALM);
                break;
            }
        }
        for event in server.events() {
            if let Event::Request { stream, .. } = event {
                let status = map(&[("grpc-status", "12")]);
                server.connection.send_response(stream, StatusCode::OK, &status, true);
                server.connection.forget(stream);
            }
        }
        assert!(server.connection.server.unwritten.open() <= 256);
        assert!(server.connection.outgoing_len() <= 256 * 64 + MAX_CONTROL);
        assert!(n < 10_000, "it goes on forever");
    }
}

#[test]
fn answers_that_are_read_slowly_are_counted_as_what_waits() {
    let mut server = Tested::server();
    // Far more than the limit in total, never much of it at a time, and never none.
    let mut written = 0;
    while written < 4 * MAX_CONTROL {
        server.pass(Duration::from_millis(100));
        server.accept(&vec![ping([1; 8]); 100]);
        let waiting = server.connection.outgoing_len();
        server.connection.advance(waiting - 1);
        written += waiting - 1;
    }
}

#[test]
fn continuation_without_end() {
    let mut server = Tested::server();
    let mut frames = vec![frame(kind::HEADERS, 0, 1, [])];
    frames.extend((0..200).map(|_| frame(kind::CONTINUATION, 0, 1, [])));
    server.fails(ErrorCode::ENHANCE_YOUR_CALM, &frames);

    let mut server = Tested::server();
    let result = flood(&mut server, |n| {
        let kind = if n == 0 { kind::HEADERS } else { kind::CONTINUATION };
        vec![frame(kind, 0, 1, [0x82; 16_000])]
    });
    calm(result, (1 << 20) / 16_000);
}

#[test]
fn a_header_bomb_of_references_to_one_large_entry() {
    let mut server = Tested::server();
    let mut first = request_block();
    first.extend_from_slice(&[0x40, 1, b'x', 127, 0xa1, 0x1e]);
    first.extend_from_slice(&[b'v'; 127 + 0x21 + (0x1e << 7)]);
    server.accept(&[headers(1, first, true)]);
    let bomb = [request_block(), vec![0x80 | 62; 16_000]].concat();
    let mut count = 0;
    loop {
        match server.send(&[headers(2 * count + 3, &bomb, true)]) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.code, ErrorCode::ENHANCE_YOUR_CALM);
                break;
            }
        }
        let events = server.events();
        let [Event::RequestTooLarge { stream, .. }] = events[..] else { panic!("{events:?}") };
        server.connection.send_response(stream, StatusCode::OK, &HeaderMap::new(), true);
        server.connection.forget(stream);
        server.frames();
        count += 1;
        assert!(count < 100_000, "it goes on forever");
    }
}

/// Returns blocks of three-byte references to the name of a malformed entry. The first block makes
/// the entry.
fn references_to_a_malformed_name(name: &[u8], value: u8) -> [Vec<u8>; 2] {
    let length = [127, (name.len() - 127) as u8 & 0x7f | 0x80, ((name.len() - 127) >> 7) as u8];
    let entry = [&[0x40][..], &length, name, &[1, value]].concat();
    // A literal without indexing whose value is empty.
    [entry, [0x0f, 62 - 15, 0].repeat(5_000)]
}

/// What comes after the first error costs budget, too, also where there is no stream for it.
#[test]
fn blocks_of_references_to_a_malformed_name() {
    let token = [b'a'; 4_000];
    let no_token = [&token[1..], b"A"].concat();
    let price = budget::decoded_in_vain(15_000, 4_999);
    assert!(price > 20);
    for (name, value) in [(&token[..], 0), (&no_token, b'v')] {
        let [entry, references] = references_to_a_malformed_name(name, value);
        let opening = |n: u32| headers(2 * n + 1, if n == 0 { &entry } else { &references }, true);
        let each = price + budget::Cost::Violation as u32;
        let mut server = Tested::server();
        calm(flood(&mut server, |n| vec![opening(n)]), budget::CAPACITY / each + 2);

        // The server has reset the first stream.
        let mut server = Tested::server();
        let late = |n| headers(1, if n == 0 { &entry } else { &references }, false);
        calm(flood(&mut server, |n| vec![late(n)]), budget::CAPACITY / price + 2);

        let mut client = Tested::client();
        let key = client.start_request(true);
        client.connection.forget(key);
        calm(flood(&mut client, |n| vec![late(n)]), budget::CAPACITY / price + 2);
    }
}

/// Heads for a stream that was reset may have been under way, but large ones cost budget.
#[test]
fn heads_too_large_for_streams_that_are_gone() {
    let mut server = Tested::server();
    let large = [0x80 | 16; 16_000];
    let each = budget::decoded_in_vain(16_000, 15_000) + budget::Cost::Violation as u32;
    let frames = |id| vec![headers(id, [0x80 | 2], false), headers(id, large, false)];
    calm(flood(&mut server, |n| frames(2 * n + 1)), budget::CAPACITY / each + 2);
}

#[test]
fn one_byte_of_data_by_the_megabyte_is_held_within_the_window() {
    let config = Config { stream_window: 10_000, ..Config::default() };
    let mut server = Tested::server_with(config);
    let key = server.open_request(false);
    for _ in 0..10_000 {
        server.send(&[data(1, "x", false)]).expect("within the window");
    }
    server.resets_known(key, ErrorCode::FLOW_CONTROL_ERROR, &[data(1, "x", false)]);
    // If the answers are read, this may go on for ever.
    let key = server.request_on(3, false);
    for _ in 0..100_000 {
        let events = server.accept(&[data(3, "x", false)]);
        assert!(matches!(&events[..], [Event::Data { stream, bytes, .. }]
            if *stream == key && bytes.len() == 1));
    }
    assert!(server.frames().len() < 100);
}

#[test]
fn replies_for_windows_that_stay_at_zero_are_held_once_each_and_not_for_ever() {
    let config = Config { max_stalled: 4 << 20, ..Config::default() };
    let mut server = Tested::server_with(config);
    server.accept(&[settings(&[(4, 0)])]);
    let body = Bytes::from(vec![1; 100_000]);
    for n in 0..256 {
        let key = server.request_on(2 * n + 1, true);
        server.connection.send_response(key, StatusCode::OK, &HeaderMap::new(), false);
        server.connection.send_data(key, body.clone(), true);
        server.connection.forget(key);
    }
    server.frames();
    bounded(&server.connection);
    assert_eq!(server.connection.queued_len(), 256 * 100_000);
    // They count as streams until they are forgotten.
    server.resets(601, ErrorCode::REFUSED_STREAM, &[request(601, true)]);
    let deadline = server.next_timeout().expect("a bound");
    server.now = deadline;
    let error = server.connection.on_timeout(server.now).expect_err("too much for too long");
    assert_eq!(error.cause, Cause::Timeout);
    assert_eq!(server.connection.queued_len(), 0);
}

#[test]
fn streams_reset_while_they_wait_for_the_connections_window_leave_nothing_behind() {
    let mut server = Tested::server();
    let body = Bytes::from(vec![1; 65_535]);
    let key = server.open_request(true);
    server.connection.send_response(key, StatusCode::OK, &HeaderMap::new(), false);
    server.connection.send_data(key, body.clone(), false);
    server.frames();
    for n in 1..5_000 {
        let id = 2 * n + 1;
        let key = server.request_on(id, true);
        server.connection.send_response(key, StatusCode::OK, &HeaderMap::new(), false);
        server.connection.send_data(key, body.clone(), false);
        server.accept(&[rst(id, ErrorCode::CANCEL)]);
        server.connection.forget(key);
        server.frames();
        bounded(&server.connection);
    }
    assert_eq!(server.connection.queued_len(), 0);
}

#[test]
fn windows_that_open_and_close_between_resets_leave_nothing_behind() {
    let mut server = Tested::server();
    // This is the whole window of the connection.
    let key = server.open_request(true);
    server.connection.send_response(key, StatusCode::OK, &HeaderMap::new(), false);
    server.connection.send_data(key, Bytes::from(vec![1; 65_535]), false);
    server.frames();
    for n in 1..400 {
        let id = 2 * n + 1;
        server.pass(Duration::from_secs(1));
        server.accept(&[settings(&[(4, 0)])]);
        let key = server.request_on(id, true);
        server.connection.send_response(key, StatusCode::OK, &HeaderMap::new(), false);
        server.connection.send_data(key, Bytes::from_static(b"x"), false);
        server.accept(&[settings(&[(4, 1)]), rst(id, ErrorCode::CANCEL)]);
        server.connection.forget(key);
        server.frames();
        assert!(server.connection.outflow.ready_len() <= 2 * 2 + 17, "{n}");
    }
}

#[test]
fn a_flood_of_informational_responses() {
    let mut client = Tested::client();
    client.start_request(true);
    let early = headers(1, block(&[(":status", b"103")]), false);
    calm(flood(&mut client, |_| vec![early.clone()]), budget::CAPACITY / 2 + 1);
}

#[test]
fn a_flood_of_go_away() {
    let mut client = Tested::client();
    calm(flood(&mut client, |_| vec![go_away(0, ErrorCode::NO_ERROR)]), budget::CAPACITY + 1);
}

#[test]
fn table_sizes_beyond_what_was_allowed() {
    let mut server = Tested::server();
    // This is a size update to 65,536.
    let update = [&[0x3f, 0xe1, 0xff, 0x03][..], &request_block()].concat();
    server.fails(ErrorCode::COMPRESSION_ERROR, &[headers(1, update, true)]);
}

#[test]
fn closed_streams_and_trailers_for_them_cannot_be_flooded() {
    let mut server = Tested::server();
    let key = server.open_request(false);
    server.connection.forget(key);
    calm(flood(&mut server, |_| vec![headers(1, trailers_block(), false)]), budget::CAPACITY + 5);

    let mut client = Tested::client();
    let key = client.start_request(true);
    client.accept(&[headers(1, response_block(), true)]);
    client.connection.forget(key);
    calm(flood(&mut client, |_| vec![headers(1, trailers_block(), true)]), budget::CAPACITY + 5);
}

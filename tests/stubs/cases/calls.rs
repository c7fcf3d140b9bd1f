//! The cases.

use std::time::Duration;

use bytes::Bytes;
use tokio_stream::StreamExt;
use tonic::codec::CompressionEncoding;
use tonic::metadata::{BinaryMetadataValue, MetadataValue};
use tonic::{Code, Request, Status};

use crate::ways::{At, Link, OURS, Through, With};
use cases::stubs::Message;
use cases::{command, full_status};

/// The code of a message that is too large: tonic says OUT_OF_RANGE.
const TOO_LARGE: Code = if OURS { Code::ResourceExhausted } else { Code::OutOfRange };

fn numbered(count: u32) -> Message {
    Message { count, ..Message::default() }
}

fn with_payload(name: &str, size: usize) -> Message {
    let payload: Vec<u8> = (0..size).map(|it| (it % 251) as u8).collect();
    Message { payload: payload.into(), ..command(name) }
}

#[track_caller]
fn assert_full(status: &Status) {
    let expected = full_status();
    assert_eq!(status.code(), expected.code(), "{status:?}");
    assert_eq!(status.message(), expected.message());
    assert_eq!(status.details(), expected.details());
    assert_eq!(status.metadata().get("x-why").unwrap(), "because");
    assert_eq!(
        status.metadata().get_bin("x-raw-bin").unwrap().to_bytes().unwrap(),
        Bytes::from_static(&[0, 1, 254])
    );
}

async fn messages_of_every_size<L: Link>(with: With<L>) {
    let mut client = with.client;
    for size in [0, 1, 5, 1024, 16_379, 16_384, 65_536, 1 << 20, 3 << 20] {
        let message = with_payload("echo", size);
        let answer = client.unary(message.clone()).await.unwrap().into_inner();
        assert_eq!(answer, message, "{size}");
    }
    // A message without fields is no bytes.
    let error = client.unary(Message::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
}

async fn a_handler_that_waits_answers_too<L: Link>(with: With<L>) {
    let mut client = with.client;
    let calls = (0..20).map(|count| {
        let mut client = client.clone();
        tokio::spawn(async move {
            let message = Message { count, ..with_payload("yield", 100) };
            assert_eq!(client.unary(message.clone()).await.unwrap().into_inner(), message);
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    assert_eq!(client.unary(command("yield")).await.unwrap().into_inner().command, "yield");
}

async fn metadata_goes_both_ways<L: Link>(with: With<L>) {
    let mut client = with.client;
    let mut request = Request::new(command("metadata"));
    let metadata = request.metadata_mut();
    metadata.insert("x-text", MetadataValue::from_static("some text"));
    metadata.insert_bin("x-raw-bin", BinaryMetadataValue::from_bytes(&[1, 0, 255]));
    metadata.append("x-list", MetadataValue::from_static("one"));
    metadata.append("x-list", MetadataValue::from_static("two"));
    // What is gRPC's own is not for callers to set.
    metadata.insert("te", MetadataValue::from_static("nonsense"));
    let response = client.unary(request).await.unwrap();
    let metadata = response.metadata();
    assert_eq!(metadata.get("x-text").unwrap(), "some text");
    assert_eq!(
        metadata.get_bin("x-raw-bin").unwrap().to_bytes().unwrap(),
        Bytes::from_static(&[1, 0, 255])
    );
    let list: Vec<_> = metadata.get_all("x-list").iter().collect();
    assert_eq!(list, ["one", "two"]);
    assert_eq!(metadata.get("grpc-status").unwrap(), "0");
    assert_eq!(metadata.get("content-type").unwrap(), "application/grpc");
    let streamed = client.down(numbered(1)).await.unwrap();
    assert_eq!(streamed.metadata().get("x-head").unwrap(), "here");
}

async fn a_status_arrives_whole<L: Link>(with: With<L>) {
    let mut client = with.client;
    assert_full(&client.unary(command("fail")).await.unwrap_err());
    assert_full(&client.down(command("fail")).await.unwrap_err());
    let error = client.unary(command("what")).await.unwrap_err();
    assert_eq!(error.message(), "no command \"what\"");
    // The connection goes on.
    assert_eq!(client.unary(command("echo")).await.unwrap().into_inner().command, "echo");
}

async fn streams_of_all_kinds<L: Link>(with: With<L>) {
    let mut client = with.client;
    for count in [0, 1, 2, 63, 64, 65, 1000] {
        let message = Message { count, ..with_payload("", 100) };
        let messages = client.down(message).await.unwrap().into_inner();
        let messages: Vec<_> = messages.map(Result::unwrap).collect().await;
        let counts: Vec<_> = messages.iter().map(|message| message.count).collect();
        assert_eq!(counts, (0..count).collect::<Vec<_>>());
        assert!(messages.iter().all(|message| message.payload.len() == 100));

        let messages = tokio_stream::iter(
            (0..count).map(|_| Message { payload: Bytes::from_static(b"xyz"), ..numbered(2) }),
        );
        let sum = client.up(messages).await.unwrap().into_inner();
        assert_eq!((sum.count, sum.payload.len()), (2 * count, 3 * count as usize));

        for through in [false, true] {
            let messages = tokio_stream::iter((0..count).map(numbered));
            let mut request = Request::new(messages);
            if through {
                request.metadata_mut().insert("x-through", MetadataValue::from_static("1"));
            }
            let messages = client.both(request).await.unwrap().into_inner();
            let counts: Vec<_> = messages.map(|message| message.unwrap().count).collect().await;
            assert_eq!(counts, (0..count).collect::<Vec<_>>());
        }
    }
}

async fn messages_of_a_stream_arrive_one_by_one<L: Link>(with: With<L>) {
    let mut client = with.client;
    let (sender, messages) = tokio::sync::mpsc::channel(1);
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    // The first one is there before the call, as not every transport sends a head by itself.
    sender.send(numbered(0)).await.unwrap();
    let mut answers = client.both(messages).await.unwrap().into_inner();
    for count in 0..10 {
        assert_eq!(answers.message().await.unwrap().unwrap().count, count);
        sender.send(numbered(count + 1)).await.unwrap();
    }
    assert_eq!(answers.message().await.unwrap().unwrap().count, 10);
    drop(sender);
    assert_eq!(answers.message().await.unwrap(), None);
    assert_eq!(answers.message().await.unwrap(), None);
}

async fn large_messages_of_a_stream<L: Link>(with: With<L>) {
    let mut client = with.client;
    let large = with_payload("", 300_000);
    let messages = tokio_stream::iter(vec![large.clone(), numbered(7), large.clone()]);
    let answers = client.both(messages).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(Result::unwrap).collect().await;
    assert_eq!(answers, [large.clone(), numbered(7), large]);
}

async fn a_stream_fails_midway<L: Link>(with: With<L>) {
    let mut client = with.client;
    for count in [0, 1, 100] {
        let message = Message { count, ..command("then fail") };
        let mut messages = client.down(message).await.unwrap().into_inner();
        for number in 0..count {
            assert_eq!(messages.message().await.unwrap().unwrap().count, number);
        }
        assert_full(&messages.message().await.unwrap_err());
        assert_eq!(messages.message().await.unwrap(), None, "an error is the end");
    }
    let messages = tokio_stream::iter(vec![numbered(1), command("fail"), numbered(2)]);
    let mut answers = client.both(messages).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().count, 1);
    assert_full(&answers.message().await.unwrap_err());
    assert_eq!(answers.message().await.unwrap(), None);
}

async fn trailers_of_a_stream<L: Link>(with: With<L>) {
    let mut client = with.client;
    let mut messages = client.down(numbered(3)).await.unwrap().into_inner();
    let trailers = messages.trailers().await.unwrap().unwrap();
    assert_eq!(trailers.get("grpc-status").unwrap(), "0");
}

async fn a_response_before_the_end_of_the_requests<L: Link>(with: With<L>) {
    let mut client = with.client;
    let endless = tokio_stream::iter([numbered(3), command("stop")])
        .chain(tokio_stream::pending::<Message>());
    assert_eq!(client.up(endless).await.unwrap().into_inner().count, 3);
}

async fn interceptors_at_both_ends<L: Link>(with: With<L>) {
    let mut client = with.client;
    let marked = client.unary(command("marked")).await.unwrap().into_inner().command;
    let mut request = Request::new(command("echo"));
    request.metadata_mut().insert("x-refuse", MetadataValue::from_static("1"));
    let refused = client.unary(request).await;
    if with.at == At::Intercepted {
        assert_eq!(marked, "the server after the client");
        assert_full(&refused.unwrap_err());
        let mut request = Request::new(tokio_stream::iter([numbered(1)]));
        request.metadata_mut().insert("x-refuse", MetadataValue::from_static("1"));
        assert_full(&client.both(request).await.unwrap_err());
    } else {
        assert_eq!(marked, "");
        refused.unwrap();
    }
}

async fn who_calls_is_known<L: Link>(with: With<L>) {
    let mut client = with.client;
    let uid = client.unary(command("peer")).await.unwrap().into_inner().count;
    let ours = matches!(with.at, At::Samehost | At::Layered | At::Intercepted);
    assert_eq!(uid > 0, ours);
}

async fn compression_where_both_ends_agree<L: Link>(with: With<L>) {
    if with.at == At::Intercepted {
        // Made by a function that takes no settings.
        return;
    }
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let plain = with.client.clone();
        let mut client = plain.send_compressed(encoding).accept_compressed(encoding);
        for size in [0, 10, 100_000, 2_000_000] {
            let message = with_payload("echo", size);
            let response = client.unary(message.clone()).await.unwrap();
            assert_eq!(response.metadata().get("grpc-encoding").unwrap(), &encoding.to_string());
            assert_eq!(response.into_inner(), message);
        }
        let response = client.unary(with_payload("plain", 1000)).await.unwrap();
        assert_eq!(response.into_inner().payload.len(), 1000);
        let messages =
            tokio_stream::iter((0..100).map(|count| Message { count, ..with_payload("", 500) }));
        let answers = client.both(messages).await.unwrap().into_inner();
        let answers: Vec<_> = answers.map(|answer| answer.unwrap().count).collect().await;
        assert_eq!(answers, (0..100).collect::<Vec<_>>());
        let sum = client.up(tokio_stream::iter([with_payload("", 70_000)])).await.unwrap();
        assert_eq!(sum.into_inner().payload.len(), 70_000);
    }
    // Who accepts nothing gets nothing compressed.
    let response = with.client.clone().unary(with_payload("echo", 1000)).await.unwrap();
    assert!(!response.metadata().contains_key("grpc-encoding"));
}

async fn compression_that_the_server_does_not_accept<L: Link>(with: With<L>) {
    let mut client = with.client.send_compressed(CompressionEncoding::Gzip);
    let error = client.unary(command("echo")).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented, "{error:?}");
    let accepted = error.metadata().get("grpc-accept-encoding").unwrap();
    assert_eq!(accepted, if with.at == At::Intercepted { "identity" } else { "zstd,identity" });
    let error = client.both(tokio_stream::iter([numbered(1)])).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
}

async fn a_decompressed_message_is_bounded<L: Link>(with: With<L>) {
    if with.at == At::Intercepted {
        return;
    }
    let bomb = Message { payload: vec![0; 3 << 20].into(), ..command("echo") };
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = with.client.clone().send_compressed(encoding);
        let error = client.unary(bomb.clone()).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}");
        let error = client.up(tokio_stream::iter([bomb.clone()])).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}");
    }
}

async fn messages_that_are_too_large<L: Link>(with: With<L>) {
    if with.at == At::Intercepted {
        return;
    }
    // The server takes 1000 bytes and sends 2000.
    let mut client = with.client.clone();
    for (size, fits) in [(900, true), (1100, false)] {
        let message = Message { count: 1, ..with_payload("large", size) };
        let outcome = client.unary(message.clone()).await.map_err(|error| error.code());
        assert_eq!(outcome.err(), (!fits).then_some(TOO_LARGE));
        let outcome = client.up(tokio_stream::iter([message])).await;
        assert_eq!(outcome.err().map(|error| error.code()), (!fits).then_some(TOO_LARGE));
    }
    for (count, fits) in [(1900, true), (2100, false)] {
        let outcome = client.unary(Message { count, ..command("large") }).await;
        assert_eq!(outcome.err().map(|error| error.code()), (!fits).then_some(TOO_LARGE));
    }
    // The client sends 100 bytes and takes 500.
    let mut client = with.client.max_encoding_message_size(100).max_decoding_message_size(500);
    for (size, fits) in [(50, true), (150, false)] {
        let outcome = client.unary(with_payload("echo", size)).await;
        // Of what tonic's body failed with, its channel tells nothing.
        let code = if OURS || with.through != Through::Tonic { TOO_LARGE } else { Code::Internal };
        assert_eq!(outcome.err().map(|error| error.code()), (!fits).then_some(code));
    }
    for (count, fits) in [(400, true), (600, false)] {
        let outcome = client.unary(Message { count, ..command("large") }).await;
        assert_eq!(outcome.err().map(|error| error.code()), (!fits).then_some(TOO_LARGE));
    }
}

async fn a_deadline_ends_a_call<L: Link>(with: With<L>) {
    let mut client = with.client;
    let mut request = Request::new(command("hang"));
    request.set_timeout(Duration::from_millis(50));
    let error = client.unary(request).await.unwrap_err();
    // tonic's own transports say so: CANCELLED.
    assert!(
        error.code() == Code::DeadlineExceeded
            || error.code() == Code::Cancelled && with.through == Through::Tonic,
        "{error:?}"
    );
    with.cases.at_work(0).await;
    let mut request = Request::new(Message { count: 2, ..command("then hang") });
    // The messages come before it, on a busy machine too.
    request.set_timeout(Duration::from_secs(2));
    let mut messages = client.down(request).await.unwrap().into_inner();
    assert_eq!(messages.message().await.unwrap().unwrap().count, 0);
    if with.through == Through::Samehost && OURS || with.at == At::Samehost {
        assert_eq!(messages.message().await.unwrap().unwrap().count, 1);
        let error = messages.message().await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    }
}

async fn a_call_that_is_dropped_is_cancelled<L: Link>(with: With<L>) {
    let mut client = with.client;
    // Before its response.
    let mut hanging = client.clone();
    let call = tokio::spawn(async move { hanging.unary(command("hang")).await });
    with.cases.at_work(1).await;
    call.abort();
    with.cases.at_work(0).await;
    // While its response arrives.
    let message = Message { count: 1, ..command("then hang") };
    let mut messages = client.down(message).await.unwrap().into_inner();
    messages.message().await.unwrap();
    with.cases.at_work(1).await;
    drop(messages);
    with.cases.at_work(0).await;
    // While its request is sent.
    let endless = tokio_stream::iter([numbered(1)]).chain(tokio_stream::pending::<Message>());
    let mut sending = client.clone();
    let call = tokio::spawn(async move { sending.up(endless).await });
    with.cases.at_work(1).await;
    call.abort();
    with.cases.at_work(0).await;
    assert_eq!(client.unary(command("echo")).await.unwrap().into_inner().command, "echo");
}

async fn a_cut_off_stream_is_not_taken_for_its_end<L: Link>(mut with: With<L>) {
    let endless = tokio_stream::iter([numbered(1)]).chain(tokio_stream::pending::<Message>());
    let mut client = with.client.clone();
    let call = tokio::spawn(async move { client.up(endless).await });
    with.cases.at_work(1).await;
    call.abort();
    with.cases.at_work(0).await;
    drop(with.client);
    // Its handler is dropped, or it is told; but never that this was all.
    drop(with.cases);
    if OURS {
        assert_ne!(with.ends.try_recv().ok(), Some(Ok(())));
    }
}

async fn a_call_is_given_up_by_its_handle<L: Link>(with: With<L>) {
    let mut client = with.client;
    let endless = tokio_stream::iter([numbered(1)]).chain(tokio_stream::pending::<Message>());
    let mut request = Request::new(endless);
    let handle = request.cancellation_handle();
    let mut sending = client.clone();
    let call = tokio::spawn(async move { sending.up(request).await });
    with.cases.at_work(1).await;
    handle.cancel();
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.code(), Code::Cancelled, "{error:?}");
    with.cases.at_work(0).await;
    if !OURS {
        // tonic looks at the handle only while it sends.
        return;
    }
    let mut request = Request::new(command("hang"));
    let handle = request.cancellation_handle();
    let mut hanging = client.clone();
    let call = tokio::spawn(async move { hanging.unary(request).await });
    with.cases.at_work(1).await;
    handle.cancel();
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Cancelled);
    with.cases.at_work(0).await;
    let mut request = Request::new(Message { count: 1, ..command("then hang") });
    let handle = request.cancellation_handle();
    let mut messages = client.down(request).await.unwrap().into_inner();
    messages.message().await.unwrap();
    handle.cancel();
    assert_eq!(messages.message().await.unwrap_err().code(), Code::Cancelled);
    with.cases.at_work(0).await;
}

async fn a_panic_ends_its_call_alone<L: Link>(with: With<L>) {
    let mut client = with.client;
    if matches!(with.at, At::Tonic | At::Axum) {
        // There it ends the connection's task, or that of the call.
        return;
    }
    client.unary(command("panic")).await.unwrap_err();
    client.down(command("panic")).await.unwrap_err();
    assert_eq!(client.unary(command("echo")).await.unwrap().into_inner().command, "echo");
}

mod on {
    use super::Through;
    use crate::ways::on_each_way;
    use tonic::codec::CompressionEncoding::{Gzip, Zstd};

    on_each_way! {
        messages_of_every_size(|server| server);
        a_handler_that_waits_answers_too(|server| server);
        metadata_goes_both_ways(|server| server);
        a_status_arrives_whole(|server| server);
        streams_of_all_kinds(|server| server);
        messages_of_a_stream_arrive_one_by_one(|server| server);
        large_messages_of_a_stream(|server| server);
        a_stream_fails_midway(|server| server);
        trailers_of_a_stream(|server| server);
        a_response_before_the_end_of_the_requests(|server| server);
        interceptors_at_both_ends(|server| server);
        who_calls_is_known(|server| server);
        compression_where_both_ends_agree(|server| {
            server
                .accept_compressed(Gzip)
                .accept_compressed(Zstd)
                .send_compressed(Zstd)
                .send_compressed(Gzip)
        });
        compression_that_the_server_does_not_accept(|server| server.accept_compressed(Zstd));
        a_decompressed_message_is_bounded(|server| {
            server
                .accept_compressed(Gzip)
                .accept_compressed(Zstd)
                .max_decoding_message_size(1 << 20)
        });
        messages_that_are_too_large(|server| {
            server.max_decoding_message_size(1000).max_encoding_message_size(2000)
        });
        a_deadline_ends_a_call(|server| server);
        a_call_that_is_dropped_is_cancelled(|server| server);
        a_cut_off_stream_is_not_taken_for_its_end(|server| server);
        a_call_is_given_up_by_its_handle(|server| server);
        a_panic_ends_its_call_alone(|server| server);
    }
}

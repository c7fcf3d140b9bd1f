//! Large messages, long streams and backpressure; panics; compression.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use bytes::Bytes;
use samehost::Server;
use samehost::ping::{
    CollectRequest, CollectResponse, Ping, PingRequest, PingServiceClient, PingServiceServer,
    WatchRequest, WatchResponse,
};
use tokio::sync::Semaphore;
use tokio_stream::StreamExt as _;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Response};

use crate::support::{
    Running, Scripted, Transport, block_on, eventually_async, on_both_transports,
};

on_both_transports!(
    a_message_of_sixty_four_megabytes_comes_back,
    a_reader_that_stops_stops_the_handler,
    a_handler_that_stops_reading_stops_the_caller,
    a_gigabyte_goes_by_a_slow_reader,
    a_panic_harms_no_other_call,
    a_request_whose_stream_ends_early_fails,
    gzip_both_ways,
    streams_that_nobody_reads_hold_up_no_call,
    uploads_that_no_handler_reads_hold_up_no_call,
    responses_that_go_on_count_with_what_their_handlers_keep,
);

async fn a_message_of_sixty_four_megabytes_comes_back(transport: Transport) {
    const LIMIT: usize = 65 << 20;
    let service = PingServiceServer::new(Ping::default()).max_decoding_message_size(LIMIT);
    let server = Running::start(transport, Server::new().add_service(service)).await;
    let client = PingServiceClient::new(server.channel().await);
    let payload = Bytes::from(vec![7; 64 << 20]);
    let request = PingRequest { payload: payload.clone(), ..PingRequest::ping() };
    let reply = client.max_decoding_message_size(LIMIT).ping(request).await.unwrap();
    assert!(reply.into_inner().payload == payload);
}

/// The size of a message in these streams, in bytes.
const MESSAGE: usize = 64 << 10;

/// The most bytes that can wait between two ends, in all windows and buffers together.
const IN_BETWEEN: usize = 8 << 20;

async fn a_reader_that_stops_stops_the_handler(transport: Transport) {
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let service = Scripted::default().on_watch(move |_| {
        let count = Arc::clone(&count);
        let payload = Bytes::from(vec![7; MESSAGE]);
        tokio_stream::iter(0..).map(move |sequence| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(WatchResponse { payload: payload.clone(), sequence, ..WatchResponse::default() })
        })
    });
    let server = Running::start(transport, service.server()).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let mut stream = client.watch(WatchRequest::default()).await.unwrap().into_inner();
    let mut read = 0;
    for round in 0..3 {
        // After other calls, the stream's handler has made as many messages as it can.
        for _ in 0..50 {
            client.ping(PingRequest::ping()).await.unwrap();
        }
        let waiting = made.load(Ordering::SeqCst) - read;
        assert!(waiting * MESSAGE <= IN_BETWEEN, "round {round}: {waiting} messages wait");
        for _ in 0..200 {
            assert_eq!(stream.message().await.unwrap().unwrap().sequence, read as u64);
            read += 1;
        }
    }
}

async fn a_handler_that_stops_reading_stops_the_caller(transport: Transport) {
    let go = Arc::new(Semaphore::new(0));
    let script = Arc::clone(&go);
    let service = Scripted::default().on_collect(move |request| {
        let go = Arc::clone(&script);
        async move {
            let mut messages = request.into_inner();
            let mut collected = CollectResponse::default();
            loop {
                go.acquire().await.unwrap().forget();
                match messages.message().await? {
                    Some(_) => collected.count += 1,
                    None => return Ok(Response::new(collected)),
                }
            }
        }
    });
    let server = Running::start(transport, service.server()).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let payload = Bytes::from(vec![7; MESSAGE]);
    let requests = tokio_stream::iter(0..1_000).map(move |sequence| {
        count.fetch_add(1, Ordering::SeqCst);
        CollectRequest { payload: payload.clone(), sequence, ..CollectRequest::default() }
    });
    let mut other = client.clone();
    let call = tokio::spawn(async move { other.collect(requests).await });
    eventually_async("the call has begun", || made.load(Ordering::SeqCst) > 0).await;
    for read in [0, 300, 600] {
        for _ in 0..50 {
            client.ping(PingRequest::ping()).await.unwrap();
        }
        let waiting = made.load(Ordering::SeqCst).saturating_sub(read);
        assert!(waiting * MESSAGE <= IN_BETWEEN, "{waiting} messages wait after {read}");
        go.add_permits(300);
        let arrived = || made.load(Ordering::SeqCst) >= read + 300;
        eventually_async("what was read makes room", arrived).await;
    }
    go.add_permits(1_000);
    assert_eq!(call.await.unwrap().unwrap().into_inner().count, 1_000);
}

async fn a_gigabyte_goes_by_a_slow_reader(transport: Transport) {
    const EACH: usize = 1 << 20;
    const COUNT: usize = 1 << 10;
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let service = Scripted::default().on_watch(move |_| {
        let count = Arc::clone(&count);
        let payload = Bytes::from(vec![7; EACH]);
        tokio_stream::iter(0..COUNT).map(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(WatchResponse { payload: payload.clone(), ..WatchResponse::default() })
        })
    });
    let server = Running::start(transport, service.server()).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let mut stream = client.watch(WatchRequest::default()).await.unwrap().into_inner();
    for read in 0..COUNT {
        assert_eq!(stream.message().await.unwrap().unwrap().payload.len(), EACH);
        tokio::task::yield_now().await;
        let waiting = made.load(Ordering::SeqCst) - read;
        assert!(waiting * EACH <= 2 * IN_BETWEEN, "{waiting} messages wait");
    }
    assert!(stream.message().await.unwrap().is_none());
}

async fn a_panic_harms_no_other_call(transport: Transport) {
    let service = Scripted::default()
        .on_ping(|request| {
            let PingRequest { message, sequence, .. } = request.into_inner();
            assert_ne!(message, "at once");
            async move {
                if sequence == 1 {
                    tokio::task::yield_now().await;
                }
                assert_ne!(message, "later");
                std::future::pending().await
            }
        })
        .on_watch(|request| {
            let after = request.into_inner().count;
            tokio_stream::iter(0..).map(move |sequence| {
                assert!(sequence < u64::from(after), "a body that panics");
                Ok(WatchResponse { sequence, ..WatchResponse::default() })
            })
        });
    let server = Running::start(transport, service.server()).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let mut other = client.clone();
    let bystander = tokio::spawn(async move { other.ping(PingRequest::ping()).await });
    for (message, sequence) in [("at once", 0), ("later", 0), ("later", 1)] {
        let request =
            PingRequest { message: message.to_owned(), sequence, ..PingRequest::default() };
        let status = client.ping(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{message} {sequence}: {status:?}");
    }
    for count in [0, 1, 10] {
        let request = WatchRequest { count, ..WatchRequest::default() };
        let status = match client.watch(request).await {
            Err(status) => status,
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(message) => assert!(message.is_some()),
                        Err(status) => break status,
                    }
                }
            }
        };
        assert_eq!(status.code(), Code::Internal, "after {count}: {status:?}");
    }
    assert!(!bystander.is_finished());
    client.collect(tokio_stream::empty()).await.unwrap();
}

async fn a_request_whose_stream_ends_early_fails(transport: Transport) {
    let server = Running::ping(transport).await;
    let mut client = PingServiceClient::new(server.channel().await);
    for count in [0, 1, 3] {
        let requests = tokio_stream::iter(0..).then(move |sequence| async move {
            tokio::task::yield_now().await;
            assert!(sequence < count, "a stream that panics");
            CollectRequest { message: "ping".to_owned(), sequence, ..CollectRequest::default() }
        });
        let status = client.collect(Box::pin(requests)).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "after {count}: {status:?}");
    }

    // The call goes on in this runtime, the stream in one that is shut down.
    let (begun, answer) = tokio::sync::oneshot::channel();
    let other = std::thread::spawn(move || {
        block_on(async move {
            let mut call = Box::pin(async move { client.collect(tokio_stream::pending()).await });
            let pending =
                std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending()));
            assert!(pending.await);
            assert!(begun.send(call).is_ok());
        });
    });
    let call = answer.await.unwrap();
    other.join().unwrap();
    assert_eq!(call.await.unwrap_err().code(), Code::Cancelled);
}

async fn gzip_both_ways(transport: Transport) {
    let service = PingServiceServer::new(Ping::default())
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let server = Running::start(transport, Server::new().add_service(service)).await;
    let mut client = PingServiceClient::new(server.channel().await)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip);
    let payload = Bytes::from(vec![7; 1 << 20]);
    let request = PingRequest { payload: payload.clone(), ..PingRequest::ping() };
    let reply = client.ping(request).await.unwrap();
    assert_eq!(reply.metadata().get("grpc-encoding").unwrap(), "gzip");
    assert!(reply.into_inner().payload == payload);
}

/// The size is more than a window and less than the limit of a message, in bytes.
const LARGE: usize = 3 << 20;

/// The number of streams at a time.
const STREAMS: usize = 16;

/// Fails the test if a call hangs.
async fn in_time<T>(what: &str, call: impl Future<Output = T>) -> T {
    let limit = std::time::Duration::from_secs(60);
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| panic!("{what} hangs"))
}

async fn streams_that_nobody_reads_hold_up_no_call(transport: Transport) {
    let service = Scripted::default().on_watch(|_| {
        let payload = Bytes::from(vec![7; LARGE]);
        tokio_stream::iter(0..2).map(move |sequence| {
            Ok(WatchResponse { payload: payload.clone(), sequence, ..WatchResponse::default() })
        })
    });
    let server = Running::start(transport, service.server()).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let stream = client.watch(WatchRequest::default()).await.unwrap();
        streams.push(stream.into_inner());
        in_time("a call beside unread streams", client.ping(PingRequest::ping())).await.unwrap();
    }
    // The streams are read one after the other.
    for mut stream in streams {
        let read = async {
            for sequence in 0..2 {
                let message = stream.message().await.unwrap().unwrap();
                assert_eq!((message.sequence, message.payload.len()), (sequence, LARGE));
            }
            assert!(stream.message().await.unwrap().is_none());
        };
        in_time("a stream beside unread ones", read).await;
    }
}

async fn uploads_that_no_handler_reads_hold_up_no_call(transport: Transport) {
    let go = Arc::new(Semaphore::new(0));
    let script = Arc::clone(&go);
    let service = Scripted::default().on_collect(move |request| {
        let go = Arc::clone(&script);
        async move {
            go.acquire().await.unwrap().forget();
            let mut messages = request.into_inner();
            let mut collected = CollectResponse::default();
            while let Some(message) = messages.message().await? {
                collected.bytes += message.payload.len() as u64;
            }
            Ok(Response::new(collected))
        }
    });
    let server = Running::start(transport, service.server()).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let payload = Bytes::from(vec![7; LARGE]);
    let mut uploads = Vec::new();
    for _ in 0..STREAMS {
        let (mut client, payload) = (client.clone(), payload.clone());
        uploads.push(tokio::spawn(async move {
            let message = CollectRequest { payload, ..CollectRequest::default() };
            client.collect(tokio_stream::once(message)).await
        }));
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        in_time("a call beside unread uploads", client.ping(PingRequest::ping())).await.unwrap();
    }
    go.add_permits(STREAMS);
    for upload in uploads {
        let collected = in_time("an upload", upload).await.unwrap().unwrap();
        assert_eq!(collected.into_inner().bytes, LARGE as u64);
    }
}

async fn responses_that_go_on_count_with_what_their_handlers_keep(transport: Transport) {
    let service = Scripted::default().on_watch(|_| tokio_stream::pending());
    let mut server = service.server();
    let stats = server.stats();
    let server = Running::start(transport, server).await;
    let mut client = PingServiceClient::new(server.channel().await);
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(client.watch(WatchRequest::default()).await.unwrap());
    }
    let counted = || stats.snapshot().buffered_bytes;
    eventually_async("each counts", || counted() > streams.len() * (14 << 10)).await;
    assert!(counted() < streams.len() * (18 << 10), "{}", counted());
    drop(streams);
    eventually_async("they are over", || counted() == 0).await;
}

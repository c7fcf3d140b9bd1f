//! What a connection that has waited for memory sends when there is room again.

use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use http::Response;
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf};
use tonic::body::Body;

use super::Answers;
use super::frames::{frame, settings};
use crate::descriptors::ReceivedSet;
use crate::driver::{
    Called, Handler, Incoming, LiveHandlers, Memory, Options, Owner, Sleeping, serve,
};
use crate::http2::RequestHead;

/// Reads each request, whose end never comes.
struct Reads;

impl Handler for Reads {
    type Body = Body;
    type Running = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

    fn call(
        &mut self,
        _: Arc<RequestHead>,
        mut body: Incoming,
        _: Option<Box<ReceivedSet>>,
        _: Option<&mut Vec<u8>>,
    ) -> Called<Self::Running> {
        Called::Unpolled(Box::pin(async move {
            while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
            pending().await
        }))
    }
}

/// The size of an answer in bytes.
const ANSWER: usize = 200_000;

/// Returns the kind and the stream of the next frame.
async fn next_frame(client: &mut DuplexStream) -> (u8, u32) {
    let mut head = [0; 9];
    client.read_exact(&mut head).await.unwrap();
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    client.read_exact(&mut payload).await.unwrap();
    (head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]))
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_response_gets_few_while_memory_is_short() {
    const ELSEWHERE: usize = 32 << 20;
    const CALLS: u32 = 20;
    let (stream, mut client) = tokio::io::duplex(1 << 20);
    let user = Memory::new(16 << 20, 16 << 20).user(Owner::Server);
    user.add(ELSEWHERE);
    let called = Arc::new(AtomicUsize::new(0));
    let serving = {
        let (stream, live) = (Sleeping::new(stream), LiveHandlers::new().add());
        let handler = Answers { size: ANSWER, calls: Arc::clone(&called) };
        serve(stream, handler, Options::default(), user.clone(), live, tokio_stream::pending())
    };
    tokio::spawn(serving);
    // SETTINGS_INITIAL_WINDOW_SIZE is 0.
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend([frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]), frame(4, 1, 0, &[])].concat());
    for call in 0..CALLS {
        // END_STREAM and END_HEADERS; of HPACK's static table: POST, http, / and no authority.
        sent.extend(frame(1, 5, 2 * call + 1, &[0x83, 0x86, 0x84]));
    }
    client.write_all(&sent).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(called.load(Ordering::SeqCst), 2, "the second exceeds the limit");
    user.subtract(ELSEWHERE);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(called.load(Ordering::SeqCst), CALLS as usize);
}

#[tokio::test(start_paused = true)]
async fn window_that_was_held_back_is_sent_when_there_is_room() {
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;
    const ELSEWHERE: usize = 1 << 20;
    let (stream, mut client) = tokio::io::duplex(1 << 20);
    let user = Memory::new(1 << 16, 1 << 16).user(Owner::Server);
    user.add(ELSEWHERE);
    let serving = {
        let (stream, live) = (Sleeping::new(stream), LiveHandlers::new().add());
        serve(stream, Reads, Options::default(), user.clone(), live, tokio_stream::pending())
    };
    tokio::spawn(serving);
    let ping = frame(PING, 0, 0, &[0; 8]);
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend([settings(), frame(4, 1, 0, &[])].concat());
    for call in 0..8 {
        // END_HEADERS; of HPACK's static table: POST, http, / and no authority.
        sent.extend(frame(1, 4, 2 * call + 1, &[0x83, 0x86, 0x84]));
    }
    client.write_all(&[sent, ping.clone()].concat()).await.unwrap();
    while next_frame(&mut client).await.0 != PING {}
    // The first request gets window. The second has used most of its own.
    let data = [frame(0, 0, 1, &[0; 10]), frame(0, 0, 3, &[0; 16_000]).repeat(4)].concat();
    client.write_all(&[data, ping].concat()).await.unwrap();
    while next_frame(&mut client).await.0 != PING {}
    // The handlers read, and no time passes: after a while the second request would get its turn.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let mut rest = [0; 9];
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut client).poll_read(cx, &mut ReadBuf::new(&mut rest)).is_pending());
    user.subtract(ELSEWHERE);
    let given = tokio::time::timeout(Duration::from_secs(5), next_frame(&mut client)).await;
    assert_eq!(given.expect("window"), (WINDOW_UPDATE, 3));
}

//! What an end does that was stopped, with its process or machine, or whose thread was blocked.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::frames::{frame, settings};
use crate::driver::{Options, Sender, Sleeping};

/// How long an end waits for the rest of a frame.
const FRAME: Duration = Duration::from_secs(10);

const SECOND: Duration = Duration::from_secs(1);

/// Returns a client and the server's end of its stream, in a frame that has begun.
async fn client_within_a_frame(rest: usize) -> (Sender, DuplexStream, Vec<u8>) {
    let (stream, mut server) = tokio::io::duplex(1 << 20);
    let sender = Sender::start(Sleeping::new(stream), Options::default());
    let answer = [settings(), frame(4, 1, 0, &[])].concat();
    server.write_all(&answer).await.unwrap();
    sender.ready().await.unwrap();
    let mut ping = frame(6, 0, 0, &[0; 8]);
    let rest = ping.split_off(ping.len() - rest);
    server.write_all(&ping).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    (sender, server, rest)
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_was_stopped_as_well_goes_on() {
    let (sender, mut server, rest) = client_within_a_frame(4).await;
    // Nothing runs meanwhile.
    tokio::time::advance(3 * FRAME).await;
    tokio::time::sleep(SECOND / 2).await;
    assert!(sender.is_open(), "{:?}", sender.close_reason());
    server.write_all(&rest).await.unwrap();
    tokio::time::sleep(2 * FRAME).await;
    assert!(sender.is_open(), "{:?}", sender.close_reason());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_go_on_is_late() {
    let (sender, _server, _) = client_within_a_frame(4).await;
    tokio::time::advance(3 * FRAME).await;
    tokio::time::sleep(2 * SECOND).await;
    assert!(!sender.is_open());
}

/// The frames that were encoded before are written, not given up.
#[tokio::test(start_paused = true)]
async fn an_end_that_was_stopped_before_it_could_write_on_writes_on() {
    let (stream, mut server) = tokio::io::duplex(64);
    let sender = Sender::start(Sleeping::new(stream), Options::default());
    let mut said = vec![0; 24];
    server.read_exact(&mut said).await.unwrap();
    server.write_all(&settings()).await.unwrap();
    // It waits for room.
    for _ in 0..8 {
        server.write_all(&frame(6, 0, 0, &[0; 8])).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::advance(4 * FRAME).await;
    let mut read = 0;
    while let Ok(Ok(bytes @ 1..)) =
        tokio::time::timeout(SECOND / 10, server.read(&mut [0; 64])).await
    {
        read += bytes;
    }
    assert!(sender.is_open(), "{:?}", sender.close_reason());
    // The acknowledgements of the PINGs are among them.
    assert!(read >= 8 * 17, "{read}");
}

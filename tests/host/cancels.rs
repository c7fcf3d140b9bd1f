//! Callers that cancel without end, on many connections: a client that does nothing of the kind is
//! served all the while, and nobody is cut off.
//!
//! How long its calls may take is checked with `--full` only, on a machine that does nothing else:
//! `PROFILE=release tests/host/run --full cancels`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use samehost::ping::{PingRequest, PingServiceClient};
use samehost::{Address, Channel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::Scale;
use crate::support::{Serving, block_on, directory, socket_in};
use crate::wire::{Peer, code, data, headers, message, request, reset};

const CALLERS: usize = 64;

/// Calls that one caller opens at a time.
const AT_A_TIME: u32 = 64;

/// What a call may take at the 99th percentile. Without optimisation everything takes longer.
const BOUND: Duration = Duration::from_millis(if cfg!(debug_assertions) { 200 } else { 20 });

/// The share of calls that may take longer than [`BOUND`].
const BEYOND: f64 = 0.01;

pub(crate) fn of_many_callers(scale: Scale) -> String {
    let directory = directory();
    let address = socket_in(directory.path());
    let serving = Serving::start(&[&address.to_string()], &["--threads", "1"]);
    let stop = Arc::new(AtomicBool::new(false));
    let cancelled = Arc::new(AtomicU64::new(0));
    let callers = std::thread::spawn({
        let (address, stop, cancelled) =
            (address.clone(), Arc::clone(&stop), Arc::clone(&cancelled));
        move || {
            block_on(async {
                let callers = (0..CALLERS).map(|_| {
                    tokio::spawn(cancel(address.clone(), Arc::clone(&stop), Arc::clone(&cancelled)))
                });
                for caller in callers.collect::<Vec<_>>() {
                    caller.await.unwrap();
                }
            });
        }
    });
    let mut times = block_on(async {
        let mut client = PingServiceClient::new(Channel::connect(&address).await.unwrap());
        let mut times = Vec::new();
        for _ in 0..scale.pick(500, 5_000) {
            let began = Instant::now();
            client.ping(PingRequest::ping()).await.unwrap();
            times.push(began.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        times
    });
    stop.store(true, Ordering::Relaxed);
    callers.join().expect("no caller was cut off");
    times.sort();
    let beyond = times.iter().filter(|time| **time > BOUND).count() as f64;
    let (median, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let cancelled = cancelled.load(Ordering::Relaxed);
    // A timing is no test on a machine that has other things to do.
    assert!(
        !scale.full || beyond <= BEYOND * times.len() as f64,
        "{beyond} of {} calls took longer than {BOUND:?}: median {median:?}, p99 {p99:?}",
        times.len()
    );
    let memory = serving.memory("VmHWM");
    format!(
        "{cancelled} calls cancelled on {CALLERS} connections: another client's take {median:?} at \
         the median and {p99:?} at the 99th percentile; the server had {} KiB at most",
        memory >> 10
    )
}

/// Opens calls and cancels them: some at once, some when their handler runs.
async fn cancel(address: Address, stop: Arc<AtomicBool>, cancelled: Arc<AtomicU64>) {
    let stream = UnixStream::connect(address.as_path().unwrap()).await.unwrap();
    let peer = Peer::client(stream, &[]).await;
    let (mut read, mut write) = tokio::io::split(peer.io);
    let reading = tokio::spawn(async move {
        let mut bytes = vec![0; 64 << 10];
        // A GOAWAY would be followed by the end.
        while read.read(&mut bytes).await.unwrap() > 0 {}
    });
    let watch = request("/ping.v1.PingService/Watch");
    let mut stream = 1;
    while !stop.load(Ordering::Relaxed) {
        let streams: Vec<u32> = (0..AT_A_TIME).map(|nth| stream + 2 * nth).collect();
        stream += 2 * AT_A_TIME;
        let mut bytes = Vec::new();
        for (nth, stream) in streams.iter().enumerate() {
            bytes.extend(headers(*stream, &watch, false));
            if nth % 2 == 0 {
                bytes.extend(reset(*stream, code::CANCEL));
            } else {
                bytes.extend(data(*stream, &message(b"\x08\x00\x12\x03\x08\x90\x1c"), true));
            }
        }
        write.write_all(&bytes).await.expect("not cut off");
        tokio::task::yield_now().await;
        let rest = streams.iter().skip(1).step_by(2);
        let bytes: Vec<u8> = rest.flat_map(|stream| reset(*stream, code::CANCEL)).collect();
        write.write_all(&bytes).await.expect("not cut off");
        cancelled.fetch_add(u64::from(AT_A_TIME), Ordering::Relaxed);
    }
    assert!(!reading.is_finished(), "the server has ended the connection");
    reading.abort();
}

//! A call whose observer does not return, beside others.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use samehost::ping::{PingRequest, PingServiceClient, WatchRequest};
use samehost::{Channel, Event, Observer};

use crate::support::{Running, eventually_async};

/// Takes its time at each Watch, and from the third on until it is released.
#[derive(Clone, Default)]
pub(crate) struct Slow(Arc<(AtomicU32, Mutex<bool>, Condvar)>);

impl Observer for Slow {
    fn observe(&self, event: &Event<'_>) {
        let Event::CallBegan { call, .. } = event else { return };
        if !call.method().ends_with("Watch") {
            return;
        }
        let (calls, released, changed) = &*self.0;
        if calls.fetch_add(1, Ordering::SeqCst) < 2 {
            std::thread::sleep(Duration::from_millis(2));
            return;
        }
        let mut released = released.lock().unwrap();
        while !*released {
            released = changed.wait(released).unwrap();
        }
    }
}

/// Checks that a slow observer harms no call but its own. `start` starts a server and a channel, one of
/// which has the observer.
pub(crate) fn harms_no_call_but_its_own<F>(start: impl FnOnce(Slow) -> F + Send + 'static)
where
    F: Future<Output = (Running, Channel)> + Send + 'static,
{
    // `on_both_transports` has a runtime of one thread.
    let run = move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let slow = Slow::default();
            let started = start(slow.clone());
            let calls = async move {
                let (_server, channel) = started.await;
                calls_beside_a_slow_one(slow, PingServiceClient::new(channel)).await;
            };
            tokio::spawn(calls).await.unwrap();
        });
    };
    std::thread::spawn(run).join().unwrap();
}

async fn calls_beside_a_slow_one(slow: Slow, mut client: PingServiceClient<Channel>) {
    let watch = WatchRequest { count: 1, ..Default::default() };
    for _ in 0..2 {
        client.watch(watch.clone()).await.unwrap();
    }
    let mut watching = client.clone();
    let held = tokio::spawn(async move { watching.watch(watch).await.map(drop) });
    let (calls, released, changed) = &*slow.0;
    eventually_async("the third call is held", || calls.load(Ordering::SeqCst) == 3).await;
    for _ in 0..20 {
        client.ping(PingRequest::ping()).await.unwrap();
    }
    assert!(!held.is_finished());
    *released.lock().unwrap() = true;
    changed.notify_all();
    held.await.unwrap().unwrap();
}

//! [`SelfWaker`]: how a connection's task wakes itself.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use rustix::event::{EventfdFlags, eventfd};
use tokio::io::unix::AsyncFd;

use crate::runtime::asynchronous;

/// After so many turns in a row that each woke only one other task, the next ones wake this task by an
/// event.
const TURNS: u8 = 4;

/// Wakes the task that owns it, after tasks that this has woken.
///
/// On a runtime of several threads, a task that wakes itself also wakes a thread if one sleeps, which
/// takes this task or another one. If only one other task was woken, both threads would share what one
/// can do. Two ways let this thread poll the other task first:
///
/// - `yield_now` keeps the own waker until then. But the thread has looked for tasks of other threads
///   before. When it then continues, tokio has it wake another thread, so that one always looks.
/// - A socket that is readable, or here an eventfd(2), wakes a task without that. This takes a
///   descriptor and two system calls, so it is only for connections that have much to do.
#[derive(Debug)]
pub(super) struct SelfWaker {
    /// Whether the runtime is known to watch descriptors.
    has_io: bool,
    /// How many turns in a row have woken only one other task. It stops at [`TURNS`].
    turns: u8,
    event: Option<AsyncFd<OwnedFd>>,
}

impl SelfWaker {
    pub(super) fn new(has_io: bool) -> Self {
        Self { has_io, turns: 0, event: None }
    }

    /// Wakes the task again. `only_one` tells whether the runtime has several threads and this has woken
    /// only one other task.
    pub(super) fn wake(&mut self, cx: &mut Context<'_>, only_one: bool) {
        if !only_one {
            self.turns = 0;
            return cx.waker().wake_by_ref();
        }
        if self.event.is_none() && self.turns < TURNS {
            self.turns += 1;
            return wake_later(cx.waker());
        }
        // If there is no descriptor left, it works without.
        if !self.has_io || self.raise(cx).is_err() {
            wake_later(cx.waker());
        }
    }

    /// Lets an event wake the task.
    fn raise(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let event = match &mut self.event {
            Some(event) => event,
            none => {
                let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
                none.insert(asynchronous(event)?)
            }
        };
        while let Poll::Ready(guard) = event.poll_read_ready(cx) {
            guard?.clear_ready();
        }
        // epoll(7) reports each addition as a new event, although none is ever read.
        rustix::io::write(event, &1_u64.to_ne_bytes())?;
        Ok(())
    }

    /// Notes that the task sleeps. The descriptor is closed unless there is a stream.
    pub(super) fn sleep(&mut self, streams: usize) {
        self.turns = 0;
        if streams == 0 {
            self.event = None;
        }
    }
}

/// Lets tokio wake a task when the thread has polled all others. Outside of a worker of tokio's it is
/// woken at once.
fn wake_later(waker: &Waker) {
    let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(waker));
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};
    use std::task::Poll;
    use std::time::{Duration, Instant};

    use rustix::thread::gettid;
    use tokio::runtime;
    use tokio::sync::mpsc;

    use super::*;
    use crate::runtime::has_several_threads;

    /// Spawns tasks that wait for their wakers, and returns these.
    async fn sleepers(count: usize, ran: &Arc<AtomicU32>) -> Vec<Waker> {
        let (sender, mut wakers) = mpsc::unbounded_channel();
        for _ in 0..count {
            let (sender, ran) = (sender.clone(), Arc::clone(ran));
            let mut slept = false;
            tokio::spawn(poll_fn(move |cx| {
                if std::mem::replace(&mut slept, true) {
                    ran.fetch_add(1, Ordering::Relaxed);
                    return Poll::Ready(());
                }
                sender.send(cx.waker().clone()).unwrap();
                Poll::Pending
            }));
        }
        let mut all = Vec::new();
        while all.len() < count {
            all.extend(wakers.recv().await);
        }
        all
    }

    /// Has a task wake some others and itself, and returns how many of them ran before it ran again.
    async fn ran_before(count: usize, turns: u8) -> u32 {
        let ran = Arc::new(AtomicU32::new(0));
        tokio::spawn(async move {
            let mut wakers = Some(sleepers(count, &ran).await);
            let mut own = SelfWaker { turns, ..SelfWaker::new(true) };
            poll_fn(|cx| match wakers.take() {
                None => Poll::Ready(ran.load(Ordering::Relaxed)),
                Some(wakers) => {
                    let only_one = wakers.len() == 1;
                    wakers.into_iter().for_each(Waker::wake);
                    own.wake(cx, only_one && has_several_threads());
                    Poll::Pending
                }
            })
            .await
        })
        .await
        .unwrap()
    }

    async fn all_run_before() {
        for (count, turns) in [(0, 0), (1, 0), (1, TURNS), (2, 0), (3, 0), (8, 0)] {
            assert_eq!(ran_before(count, turns).await, u32::try_from(count).unwrap());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_task_that_wakes_itself_is_polled_after_those_that_it_woke() {
        all_run_before().await;
    }

    #[tokio::test]
    async fn so_it_is_on_one_thread() {
        all_run_before().await;
    }

    const WORK: Duration = Duration::from_micros(50);

    /// Lets a task wake another one and itself so many times.
    async fn wake_another_and_itself(times: u32) {
        let other = Arc::new(Mutex::new(Waker::noop().clone()));
        let of_other = Arc::clone(&other);
        let task = tokio::spawn(poll_fn::<(), _>(move |cx| {
            *of_other.lock().unwrap() = cx.waker().clone();
            // A thread that was woken has time to find nothing.
            let began = Instant::now();
            while began.elapsed() < WORK {
                std::hint::spin_loop();
            }
            Poll::Pending
        }));
        let own = tokio::spawn(async move {
            let mut own = SelfWaker::new(true);
            for _ in 0..times {
                let mut woken = false;
                poll_fn(|cx| {
                    if std::mem::replace(&mut woken, true) {
                        return Poll::Ready(());
                    }
                    other.lock().unwrap().wake_by_ref();
                    own.wake(cx, true);
                    Poll::Pending
                })
                .await;
            }
        });
        own.await.unwrap();
        task.abort();
    }

    #[test]
    fn meanwhile_no_thread_sleeps_and_is_woken() {
        const TIMES: u32 = 2_000;
        let threads = Arc::new(Mutex::new(Vec::new()));
        let started = Arc::clone(&threads);
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_io()
            .on_thread_start(move || started.lock().unwrap().push(gettid()))
            .build()
            .unwrap();
        let own = runtime.spawn(wake_another_and_itself(TIMES));
        runtime.block_on(own).unwrap();
        // How often they have gone to sleep (proc_pid_status(5)).
        let sleeps = threads.lock().unwrap().clone().into_iter().map(|thread| {
            let thread = thread.as_raw_nonzero();
            let status = format!("/proc/self/task/{thread}/status");
            let status = std::fs::read_to_string(status).unwrap();
            let count =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            count.unwrap().trim().parse::<u32>().unwrap()
        });
        let sleeps: Vec<_> = sleeps.collect();
        assert_eq!(sleeps.len(), 2);
        assert!(sleeps.iter().sum::<u32>() < TIMES / 10, "{sleeps:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_descriptor_is_closed_when_the_connection_sleeps_without_a_stream() {
        let mut own = SelfWaker::new(true);
        let wake = |own: &mut SelfWaker| {
            for _ in 0..=TURNS {
                own.wake(&mut Context::from_waker(Waker::noop()), true);
            }
        };
        wake(&mut own);
        own.sleep(1);
        assert!(own.event.is_some());
        own.sleep(0);
        assert!(own.event.is_none());
    }
}

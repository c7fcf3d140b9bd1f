//! [`Waking`]: how a connection's task wakes others, and itself.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use tokio::runtime::{Handle, RuntimeFlavor};

/// How many turns follow each other in one poll on a runtime of several threads, if they wake no
/// task. There, a task that wakes itself wakes another thread, too.
const TURNS: u32 = 4;

/// How tasks are woken on the connection's runtime.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waking {
    /// Whether the runtime has several threads.
    parallel: bool,
}

/// Which tasks a turn has woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    None,
    /// They can run.
    Some,
    /// They can run when this thread has run all others.
    Later,
}

impl Waking {
    /// Returns how tasks of the current runtime are woken.
    pub(super) fn new() -> Self {
        let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
        Self { parallel: !matches!(flavor, Ok(RuntimeFlavor::CurrentThread)) }
    }

    /// Returns how many turns one poll may have.
    pub(super) fn turns(self) -> u32 {
        if self.parallel { TURNS } else { 1 }
    }

    /// Wakes tasks. `own` is the waker of the task that calls this.
    ///
    /// On a runtime of several threads, each waker of several tasks wakes a thread if one sleeps.
    /// That thread finds one or two tasks, and sleeps again before the next ones are woken. So tasks
    /// of tokio are woken together, when this thread has run all others: that wakes one thread for
    /// all. `yield_now` keeps their wakers until then.
    pub(super) fn wake(self, wakes: impl ExactSizeIterator<Item = Waker>, own: &Waker) -> Woken {
        let mut woken = if wakes.len() > 0 { Woken::Some } else { Woken::None };
        let together = self.parallel && wakes.len() > 1;
        for waker in wakes {
            // Others may wait outside the runtime.
            let is_tokios = std::ptr::eq(waker.vtable(), own.vtable());
            if together && is_tokios && is_kept(&waker) {
                woken = Woken::Later;
            } else {
                waker.wake();
            }
        }
        woken
    }

    /// Lets the calling task be polled again, but not before the tasks that it has woken.
    pub(super) fn again(cx: &Context<'_>, woken: Woken) {
        if woken != Woken::Later || !is_kept(cx.waker()) {
            cx.waker().wake_by_ref();
        }
    }
}

/// Lets tokio wake a task later. Outside of a worker of tokio's it is woken at once.
fn is_kept(waker: &Waker) -> bool {
    pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(waker)).is_pending()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::task::{Poll, Wake};
    use std::time::{Duration, Instant};

    use tokio::sync::mpsc;

    use super::*;

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

    struct Outside(AtomicBool);

    impl Wake for Outside {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn several_tasks_are_woken_together_after_the_one_that_wakes_them() {
        let ran = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&ran);
        // In a task of the runtime, and not in the test's own thread.
        tokio::spawn(async move {
            let mut wakers = sleepers(8, &counter).await;
            let outside = Arc::new(Outside(AtomicBool::new(false)));
            wakers.push(Arc::clone(&outside).into());
            poll_fn(|cx| {
                assert_eq!(Waking::new().wake(wakers.drain(..), cx.waker()), Woken::Later);
                assert!(outside.0.load(Ordering::Relaxed), "it is no task of the runtime");
                // The other thread has time to run them if it can.
                let until = Instant::now() + Duration::from_millis(20);
                while Instant::now() < until {
                    assert_eq!(counter.load(Ordering::Relaxed), 0);
                }
                Poll::Ready(())
            })
            .await;
        })
        .await
        .unwrap();
        while ran.load(Ordering::Relaxed) < 8 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn one_thread_wakes_tasks_at_once() {
        let outside = Arc::new(Outside(AtomicBool::new(false)));
        let wakers = vec![Waker::from(Arc::clone(&outside)), Waker::noop().clone()];
        assert_eq!(Waking::new().wake(wakers.into_iter(), Waker::noop()), Woken::Some);
        assert!(outside.0.load(Ordering::Relaxed));
        assert_eq!(Waking::new().turns(), 1);
        assert_eq!(Waking::new().wake(Vec::new().into_iter(), Waker::noop()), Woken::None);
    }
}

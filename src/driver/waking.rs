//! [`Waking`]: how a connection's task wakes others, and itself.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use tokio::runtime::{Handle, RuntimeFlavor};

/// How tasks are woken on the connection's runtime.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waking {
    /// Whether the runtime has several threads.
    parallel: bool,
}

impl Waking {
    /// Returns how tasks of the current runtime are woken.
    pub(super) fn new() -> Self {
        let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
        Self { parallel: !matches!(flavor, Ok(RuntimeFlavor::CurrentThread)) }
    }

    /// Wakes tasks. `own` is the waker of the task that calls this. With `again`, that task is woken,
    /// too, and is polled after the others.
    ///
    /// On a runtime of several threads, each waker of several tasks wakes a thread if one sleeps.
    /// That thread finds one or two tasks, and sleeps again before the next ones are woken. So tasks
    /// of tokio are woken together, when this thread has run all others: that wakes one thread for
    /// all. `yield_now` keeps their wakers until then.
    pub(super) fn wake(
        self,
        wakes: impl ExactSizeIterator<Item = Waker>,
        own: &Waker,
        mut again: bool,
    ) {
        let together = self.parallel && wakes.len() > 1;
        for waker in wakes {
            // Others may wait outside the runtime.
            let is_tokios = std::ptr::eq(waker.vtable(), own.vtable());
            if !(together && is_tokios && is_kept(&waker)) {
                waker.wake();
            } else if std::mem::take(&mut again) {
                // tokio wakes in reverse order, and polls the task first that it woke last. So the
                // second waker that it keeps is that of the task which is polled last.
                is_kept(own);
            }
        }
        if again {
            own.wake_by_ref();
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
                Waking::new().wake(wakers.drain(..), cx.waker(), false);
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

    /// Has a task wake some others and itself, and returns how many of them ran before it ran again.
    async fn ran_before(count: usize) -> u32 {
        let ran = Arc::new(AtomicU32::new(0));
        tokio::spawn(async move {
            let mut wakers = Some(sleepers(count, &ran).await);
            poll_fn(|cx| match wakers.take() {
                None => Poll::Ready(ran.load(Ordering::Relaxed)),
                Some(wakers) => {
                    Waking::new().wake(wakers.into_iter(), cx.waker(), true);
                    Poll::Pending
                }
            })
            .await
        })
        .await
        .unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_task_that_wakes_itself_is_polled_after_those_that_it_woke() {
        for count in [0, 1, 2, 3, 8] {
            assert_eq!(ran_before(count).await, u32::try_from(count).unwrap());
        }
    }

    #[tokio::test]
    async fn so_it_is_on_one_thread() {
        for count in [0, 1, 2, 3, 8] {
            assert_eq!(ran_before(count).await, u32::try_from(count).unwrap());
        }
    }

    #[tokio::test]
    async fn one_thread_wakes_tasks_at_once() {
        let outside = Arc::new(Outside(AtomicBool::new(false)));
        let wakers = vec![Waker::from(Arc::clone(&outside)), Waker::noop().clone()];
        Waking::new().wake(wakers.into_iter(), Waker::noop(), false);
        assert!(outside.0.load(Ordering::Relaxed));
    }
}

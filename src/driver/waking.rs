//! How a connection's task wakes itself.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

/// Wakes the task that calls this, whose waker is `own`, after tasks that it woke.
///
/// On a runtime of several threads, a task that wakes itself also wakes a thread if one sleeps, which
/// takes this task or another one. If `only_one` task was woken, both threads would share what one can
/// do. Then `yield_now` keeps the own waker until this thread has polled the other task.
pub(super) fn wake_again(own: &Waker, only_one: bool) {
    if only_one {
        wake_later(own);
    } else {
        own.wake_by_ref();
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
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Poll;

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
    async fn ran_before(count: usize) -> u32 {
        let ran = Arc::new(AtomicU32::new(0));
        tokio::spawn(async move {
            let mut wakers = Some(sleepers(count, &ran).await);
            poll_fn(|cx| match wakers.take() {
                None => Poll::Ready(ran.load(Ordering::Relaxed)),
                Some(wakers) => {
                    let only_one = wakers.len() == 1;
                    wakers.into_iter().for_each(Waker::wake);
                    wake_again(cx.waker(), only_one && has_several_threads());
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
}

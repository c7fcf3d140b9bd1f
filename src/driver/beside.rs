//! [`Beside`]: a future that waits in the same task as a busy one, without slowing it down.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Polls its future only when that future was woken, however often the task is polled for other
/// reasons.
pub(super) struct Beside<'a, F> {
    future: Pin<&'a mut F>,
    alarm: Option<Arc<Alarm>>,
}

struct Alarm {
    rung: AtomicBool,
    task: Waker,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl<'a, F: Future> Beside<'a, F> {
    pub(super) fn new(future: Pin<&'a mut F>) -> Self {
        Self { future, alarm: None }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        let alarm = match &mut self.alarm {
            Some(alarm) if alarm.task.will_wake(cx.waker()) => {
                // Usually it has not rung, and to load costs less than to swap. The swap lets the
                // future see what happened before it rang.
                if !alarm.rung.load(Ordering::Relaxed) || !alarm.rung.swap(false, Ordering::AcqRel)
                {
                    return Poll::Pending;
                }
                alarm
            }
            slot => {
                let alarm = Alarm { rung: AtomicBool::new(false), task: cx.waker().clone() };
                slot.insert(Arc::new(alarm))
            }
        };
        let waker = Waker::from(Arc::clone(alarm));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use samehost_test_support::Wakes;

    use super::*;

    #[tokio::test]
    async fn is_polled_when_it_was_woken_and_not_otherwise() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let mut polls = 0;
        let mut receiver = pin!(receiver);
        let mut future = pin!(std::future::poll_fn(|cx| {
            polls += 1;
            receiver.as_mut().poll(cx)
        }));
        let mut beside = Beside::new(future.as_mut());
        for _ in 0..10 {
            std::future::poll_fn(|cx| {
                assert!(beside.poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        tokio::spawn(async move { sender.send(7) });
        assert_eq!(std::future::poll_fn(|cx| beside.poll(cx)).await, Ok(7));
        assert_eq!(polls, 2);
    }

    #[test]
    fn another_task_is_woken_too() {
        let wakes = Arc::new(Wakes::default());
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let mut receiver = pin!(receiver);
        let mut beside = Beside::new(receiver.as_mut());
        assert!(beside.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let waker = wakes.waker();
        assert!(beside.poll(&mut Context::from_waker(&waker)).is_pending());
        sender.send(7).unwrap();
        assert_eq!(wakes.count(), 1);
        assert!(beside.poll(&mut Context::from_waker(&waker)).is_ready());
    }
}

//! [`Beside`]: a stream that waits in the same task as a busy future, without slowing it down.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_core::Stream;

/// Polls its stream only when that stream was woken or has just had an item, however often the task is
/// polled for other reasons.
pub(super) struct Beside<'a, S> {
    stream: Pin<&'a mut S>,
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

impl<'a, S: Stream> Beside<'a, S> {
    pub(super) fn new(stream: Pin<&'a mut S>) -> Self {
        Self { stream, alarm: None }
    }

    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        match &self.alarm {
            // Usually it has not rung, and to load costs less than to swap.
            Some(alarm)
                if !alarm.rung.load(Ordering::Relaxed) && alarm.task.will_wake(cx.waker()) =>
            {
                Poll::Pending
            }
            _ => self.poll_stream(cx),
        }
    }

    #[cold]
    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let alarm = match &mut self.alarm {
            Some(alarm) if alarm.task.will_wake(cx.waker()) => {
                // The stream sees what happened before it rang.
                if !alarm.rung.swap(false, Ordering::AcqRel) {
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
        let polled = self.stream.as_mut().poll_next(&mut Context::from_waker(&waker));
        // A stream that had an item may have the next without a wake-up.
        if polled.is_ready() {
            alarm.rung.store(true, Ordering::Release);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use samehost_test_support::Wakes;

    use super::*;

    #[tokio::test]
    async fn is_polled_when_it_was_woken_and_not_otherwise() {
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        let mut stream = pin!(Counted { receiver, polls: 0 });
        let mut beside = Beside::new(stream.as_mut());
        let pending_ten_times = async |beside: &mut Beside<'_, Counted>| {
            for _ in 0..10 {
                let polled = std::future::poll_fn(|cx| Poll::Ready(beside.poll(cx))).await;
                assert!(polled.is_pending());
            }
        };
        pending_ten_times(&mut beside).await;
        sender.try_send(7).unwrap();
        sender.try_send(8).unwrap();
        assert_eq!(std::future::poll_fn(|cx| beside.poll(cx)).await, Some(7));
        assert_eq!(std::future::poll_fn(|cx| beside.poll(cx)).await, Some(8));
        pending_ten_times(&mut beside).await;
        assert_eq!(stream.polls, 4);
    }

    struct Counted {
        receiver: tokio::sync::mpsc::Receiver<u8>,
        polls: usize,
    }

    impl Stream for Counted {
        type Item = u8;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u8>> {
            self.polls += 1;
            self.receiver.poll_recv(cx)
        }
    }

    #[test]
    fn another_task_is_woken_too() {
        let wakes = Arc::new(Wakes::default());
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let mut stream = pin!(Counted { receiver, polls: 0 });
        let mut beside = Beside::new(stream.as_mut());
        assert!(beside.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let waker = wakes.waker();
        assert!(beside.poll(&mut Context::from_waker(&waker)).is_pending());
        sender.try_send(7).unwrap();
        assert_eq!(wakes.count(), 1);
        assert!(beside.poll(&mut Context::from_waker(&waker)).is_ready());
    }
}

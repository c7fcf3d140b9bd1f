//! [`Timer`]: wakes the driver when something is due. It is not set while nothing is.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

/// A driver that runs so much later than something is due was stopped, with its process or machine, or its
/// thread was blocked.
const LATE: Duration = Duration::from_millis(100);

/// How long the peer has after that. It may have been stopped, too.
const GRACE: Duration = Duration::from_secs(1);

/// A peer gets that only once in this time. A driver that is late again and again has too much to do, and
/// limits on its peer have to hold then, too.
const SELDOM: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Timer {
    /// When something is due.
    due: Option<Instant>,
    has_calls: bool,
    /// Whether there were calls when the timer was armed.
    stays: bool,
    sleep: Option<Pin<Box<Sleep>>>,
    /// When `sleep` fires, if it has not fired.
    armed: Option<Instant>,
    /// The task that `sleep` wakes.
    waker: Option<Waker>,
    /// When the driver ran last.
    ran: Option<Instant>,
    /// When the peer last got more time.
    extended: Option<Instant>,
}

impl Timer {
    /// Returns whether something is due.
    #[inline]
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|at| at <= now)
    }

    /// Returns how much more time the peer gets, because this end was late: its driver has neither read nor
    /// written meanwhile.
    pub(super) fn extension(&mut self, now: Instant) -> Option<Duration> {
        let late = now.saturating_duration_since(self.due?.max(self.ran?));
        if late < LATE || self.extended.is_some_and(|at| now < at + SELDOM) {
            return None;
        }
        self.extended = Some(now);
        Some(late + GRACE)
    }

    /// Notes that everything that was due is done.
    #[inline]
    pub(super) fn fired(&mut self, now: Instant) {
        self.ran = Some(now);
        if self.armed.is_some_and(|at| at <= now) {
            self.armed = None;
        }
    }

    /// Sets when something is due, or that nothing is. A timer that was armed while there were calls
    /// stays armed as long as there are: to arm it again and again, as frames arrive in parts, takes a
    /// system call each time.
    #[inline]
    pub(super) fn set(&mut self, due: Option<Instant>, has_calls: bool) {
        self.due = due;
        self.has_calls = has_calls;
    }

    /// Ensures that the driver wakes in time. A timer that fires too early stays as it is, and then
    /// the time is checked again.
    #[inline]
    pub(super) fn arm(&mut self, cx: &mut Context<'_>) {
        let Some(due) = self.due else {
            if !(self.stays && self.has_calls) {
                self.sleep = None;
                self.armed = None;
            }
            return;
        };
        if self.armed.is_none_or(|at| at > due) || !self.wakes(cx) {
            self.arm_at(due, cx);
        }
    }

    /// Returns whether it wakes this task. A connection that is served may move to another task.
    #[inline]
    fn wakes(&self, cx: &Context<'_>) -> bool {
        self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()))
    }

    fn arm_at(&mut self, due: Instant, cx: &mut Context<'_>) {
        self.armed = Some(due);
        self.stays = self.has_calls;
        if !self.wakes(cx) {
            self.waker = Some(cx.waker().clone());
        }
        let at = tokio::time::Instant::from_std(due);
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                sleep.as_mut().reset(at);
                sleep
            }
            None => self.sleep.insert(Box::pin(sleep_until(at))),
        };
        if sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}

/// Returns the time of tokio's clock, which tests can stop.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::task::{Poll, Waker};

    use super::*;

    #[tokio::test]
    async fn a_timer_of_calls_stays_armed_while_nothing_is_due() {
        let (mut timer, cx) = (Timer::default(), &mut Context::from_waker(Waker::noop()));
        let due = now() + Duration::from_secs(10);
        timer.set(Some(due), true);
        timer.arm(cx);
        timer.set(None, true);
        timer.arm(cx);
        assert_eq!(timer.armed, Some(due));
        assert!(!timer.is_due(due), "then it wakes for nothing");
        timer.set(None, false);
        timer.arm(cx);
        assert!(timer.armed.is_none() && timer.sleep.is_none());
        timer.set(Some(due), false);
        timer.arm(cx);
        timer.set(None, true);
        timer.arm(cx);
        assert!(timer.armed.is_none(), "it was not armed for calls");
    }

    #[test]
    fn a_peer_gets_more_time_where_this_end_was_late_and_only_once_in_a_minute() {
        let second = Duration::from_secs(1);
        let (mut timer, start) = (Timer::default(), now());
        timer.set(Some(start + 10 * second), false);
        assert_eq!(timer.extension(start + 12 * second), None, "it has not run before");
        timer.fired(start);
        assert_eq!(timer.extension(start + 10 * second + LATE / 2), None, "in time");
        assert_eq!(timer.extension(start + 12 * second), Some(2 * second + GRACE));
        timer.fired(start + 12 * second);
        assert_eq!(timer.extension(start + 20 * second), None, "soon again");
        timer.fired(start + 80 * second);
        assert_eq!(timer.extension(start + 80 * second), None, "it ran all the time");
        assert_eq!(timer.extension(start + 83 * second), Some(3 * second + GRACE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_moves_to_another_task_wakes_that_task() {
        let mut timer = Timer::default();
        timer.set(Some(now() + Duration::from_secs(10)), false);
        timer.arm(&mut Context::from_waker(Waker::noop()));
        tokio::spawn(async move {
            let due = timer.due;
            std::future::poll_fn(|cx| {
                timer.arm(cx);
                if timer.is_due(now()) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            assert_eq!(due, Some(now()));
        })
        .await
        .unwrap();
    }
}

//! [`Notices`]: when a connection is to end, and how soon.

use std::future::{Future, Pending};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::http2::Notice;
use crate::observer::{CallObserver, GoAwayReason};

/// Has a notice when the server stops, and one before that if the connection reaches its maximum age.
pub(super) struct Notices<S, A = Pending<Notice>> {
    stopped: Option<S>,
    aged: Option<A>,
    /// Is told of the first notice. A later one makes no further GOAWAY.
    observer: Option<CallObserver>,
}

impl<S> Notices<S> {
    pub(super) fn without_age(stopped: S, observer: Option<CallObserver>) -> Self {
        Self { stopped: Some(stopped), aged: None, observer }
    }
}

impl<S, A> Notices<S, A> {
    pub(super) fn new(stopped: S, aged: A, observer: Option<CallObserver>) -> Self {
        Self { stopped: Some(stopped), aged: Some(aged), observer }
    }

    fn tell(&mut self, reason: GoAwayReason) {
        if let Some(observer) = self.observer.take() {
            observer.go_away_sent(reason);
        }
    }
}

impl<S, A> Stream for Notices<S, A>
where
    S: Future<Output = Notice> + Unpin,
    A: Future<Output = Notice> + Unpin,
{
    type Item = Notice;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Notice>> {
        if let Some(notice) = ready_once(&mut self.stopped, cx) {
            self.aged = None;
            self.tell(GoAwayReason::Shutdown);
            return Poll::Ready(Some(notice));
        }
        let Some(notice) = ready_once(&mut self.aged, cx) else { return Poll::Pending };
        self.tell(GoAwayReason::MaxAge);
        Poll::Ready(Some(notice))
    }
}

/// Returns the output of a future when it completes, and `None` before and after.
fn ready_once<F: Future + Unpin>(
    future: &mut Option<F>,
    cx: &mut Context<'_>,
) -> Option<F::Output> {
    let Poll::Ready(output) = Pin::new(future.as_mut()?).poll(cx) else { return None };
    *future = None;
    Some(output)
}

//! [`Notices`]: when a connection is to end, and how soon.

use std::future::{Future, Pending};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::http2::Notice;

/// Has a notice when the server stops, and one before that if the connection reaches its maximum age.
pub(super) struct Notices<S, A = Pending<()>> {
    stopped: Option<S>,
    aged: Option<A>,
}

impl<S> Notices<S> {
    pub(super) fn without_age(stopped: S) -> Self {
        Self { stopped: Some(stopped), aged: None }
    }
}

impl<S, A> Notices<S, A> {
    pub(super) fn new(stopped: S, aged: A) -> Self {
        Self { stopped: Some(stopped), aged: Some(aged) }
    }
}

impl<S, A> Stream for Notices<S, A>
where
    S: Future<Output = Notice> + Unpin,
    A: Future<Output = ()> + Unpin,
{
    type Item = Notice;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Notice>> {
        if let Some(notice) = ready_once(&mut self.stopped, cx) {
            self.aged = None;
            return Poll::Ready(Some(notice));
        }
        // Nobody waits for the end of an old connection.
        match ready_once(&mut self.aged, cx) {
            Some(()) => Poll::Ready(Some(Notice::Long)),
            None => Poll::Pending,
        }
    }
}

/// Returns the output of a future when it completes, and `None` before and after.
fn ready_once<F: Future + Unpin>(
    future: &mut Option<F>,
    cx: &mut Context<'_>,
) -> Option<F::Output> {
    let Poll::Ready(output) = pin!(future.as_mut()?).poll(cx) else { return None };
    *future = None;
    Some(output)
}

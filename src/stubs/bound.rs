//! [`Bound`]: a method's future together with the service that it borrows.
#![allow(unsafe_code, reason = "no type expresses that a future borrows from its neighbour")]

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A future as the methods of a service trait return it.
type Running<'a, O> = Pin<Box<dyn Future<Output = O> + Send + 'a>>;

/// The running method of a service, which it borrows. If it is not ready at once, it gets a reference of
/// its own.
pub struct Bound<'a, T, O> {
    /// It borrows from what `service` refers to, and from nothing else.
    future: Running<'a, O>,
    service: &'a Arc<T>,
}

impl<'a, T: 'static, O> Bound<'a, T, O> {
    /// Calls a method of `service`.
    pub fn new(service: &'a Arc<T>, method: impl for<'b> FnOnce(&'b T) -> Running<'b, O>) -> Self {
        // `method` works for any lifetime, so that the future borrows nothing else.
        Self { future: method(service), service }
    }

    /// Returns the running method of a `service` that it has a reference to.
    pub fn owned(service: &'a Arc<T>, future: Running<'static, O>) -> Self {
        Self { future, service }
    }

    /// Returns the method with a reference to the service, so that it can outlive this call.
    pub(super) fn into_owned(self) -> Owned<T, O> {
        let Self { future, service } = self;
        // SAFETY: the service is neither moved nor dropped as long as the new `Arc` exists, which is
        // longer than the future does. Others can only share it. The future borrows from the service
        // only, and not from `self.service`. What it returns has a type that does not contain this
        // lifetime.
        let future = unsafe { mem::transmute::<Running<'a, O>, Running<'static, O>>(future) };
        Owned { future, _service: Arc::clone(service) }
    }
}

impl<T, O> Future for Bound<'_, T, O> {
    type Output = O;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O> {
        self.future.as_mut().poll(cx)
    }
}

impl<T, O> fmt::Debug for Bound<'_, T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").finish_non_exhaustive()
    }
}

/// The running method of a service, with a reference to the service. It can be moved while it runs.
pub(super) struct Owned<T, O> {
    /// It borrows from `service`. Fields are dropped in their order, so it is dropped first.
    future: Running<'static, O>,
    _service: Arc<T>,
}

impl<T, O> Future for Owned<T, O> {
    type Output = O;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O> {
        self.future.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Waker;

    use tokio::sync::oneshot;

    use super::*;

    struct Service {
        name: String,
        dropped: Arc<AtomicBool>,
    }

    impl Drop for Service {
        fn drop(&mut self) {
            self.dropped.store(true, Ordering::Relaxed);
        }
    }

    /// Reads the service when it is dropped.
    struct Reader<'a>(&'a Service);

    impl Drop for Reader<'_> {
        fn drop(&mut self) {
            assert!(!self.0.dropped.load(Ordering::Relaxed));
            assert_eq!(self.0.name, "greeter");
        }
    }

    fn service() -> (Arc<Service>, Arc<AtomicBool>) {
        let dropped = Arc::new(AtomicBool::new(false));
        let service = Service { name: "greeter".to_owned(), dropped: Arc::clone(&dropped) };
        (Arc::new(service), dropped)
    }

    fn bound(service: &Arc<Service>, until: oneshot::Receiver<()>) -> Bound<'_, Service, usize> {
        Bound::new(service, |service| {
            let reader = Reader(service);
            Box::pin(async move {
                let _ = until.await;
                reader.0.name.len()
            })
        })
    }

    #[test]
    fn a_method_that_is_ready_at_once_takes_no_reference() {
        let (service, _) = service();
        let mut call = Bound::new(&service, |service| Box::pin(async { service.name.len() }));
        assert_eq!(Arc::strong_count(call.service), 1);
        let cx = &mut Context::from_waker(Waker::noop());
        assert_eq!(Pin::new(&mut call).poll(cx), Poll::Ready(7));
    }

    #[test]
    fn the_service_lives_as_long_as_the_future_wherever_both_are_moved() {
        let (end, until) = oneshot::channel();
        let (service, dropped) = service();
        let mut call = bound(&service, until);
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut call).poll(cx).is_pending());
        let mut moved = Box::new(call.into_owned());
        drop(service);
        end.send(()).unwrap();
        assert_eq!(Pin::new(&mut *moved).poll(cx), Poll::Ready(7));
        assert!(!dropped.load(Ordering::Relaxed));
        drop(moved);
        assert!(dropped.load(Ordering::Relaxed));
    }

    #[test]
    fn a_future_that_is_given_up_is_dropped_before_the_service() {
        let (_end, until) = oneshot::channel();
        let (service, dropped) = service();
        let mut call = bound(&service, until);
        assert!(Pin::new(&mut call).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let call = call.into_owned();
        drop(service);
        assert!(!dropped.load(Ordering::Relaxed));
        drop(call);
        assert!(dropped.load(Ordering::Relaxed));
    }
}

//! [`Bound`]: a method's future together with the service that it borrows.
#![allow(unsafe_code, reason = "no type expresses that a future borrows from its neighbour")]

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A future as the methods of a service trait return it.
type Running<'a, O> = Pin<Box<dyn Future<Output = O> + Send + 'a>>;

/// The running method of a service. It owns a reference to the service, and can be moved while it
/// runs: so it can be polled before it is put into memory of its own.
pub struct Bound<T, O> {
    /// It borrows from `service`. Fields are dropped in their order, so it is dropped first.
    future: Running<'static, O>,
    _service: Arc<T>,
}

impl<T: 'static, O> Bound<T, O> {
    /// Calls a method of `service`.
    pub fn new(service: Arc<T>, method: impl for<'a> FnOnce(&'a T) -> Running<'a, O>) -> Self {
        let pointer = Arc::as_ptr(&service);
        // SAFETY: the service is neither moved nor dropped as long as this `Arc` exists, which is
        // longer than the future does. Others can only share it. `method` works for any lifetime,
        // so that it cannot keep the reference anywhere else than in the future. What the future
        // returns has a type that does not contain this lifetime.
        let future = method(unsafe { &*pointer });
        Self { future, _service: service }
    }
}

impl<T, O> Future for Bound<T, O> {
    type Output = O;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O> {
        self.future.as_mut().poll(cx)
    }
}

impl<T, O> fmt::Debug for Bound<T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").finish_non_exhaustive()
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

    fn bound(until: oneshot::Receiver<()>) -> (Bound<Service, usize>, Arc<AtomicBool>) {
        let dropped = Arc::new(AtomicBool::new(false));
        let service = Service { name: "greeter".to_owned(), dropped: Arc::clone(&dropped) };
        let call = Bound::new(Arc::new(service), |service| {
            let reader = Reader(service);
            Box::pin(async move {
                let _ = until.await;
                reader.0.name.len()
            })
        });
        (call, dropped)
    }

    #[test]
    fn the_service_lives_as_long_as_the_future_wherever_both_are_moved() {
        let (end, until) = oneshot::channel();
        let (mut call, dropped) = bound(until);
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut call).poll(cx).is_pending());
        let mut moved = Box::new(call);
        end.send(()).unwrap();
        assert_eq!(Pin::new(&mut *moved).poll(cx), Poll::Ready(7));
        assert!(!dropped.load(Ordering::Relaxed));
        drop(moved);
        assert!(dropped.load(Ordering::Relaxed));
    }

    #[test]
    fn a_future_that_is_given_up_is_dropped_before_the_service() {
        let (_end, until) = oneshot::channel();
        let (mut call, dropped) = bound(until);
        assert!(Pin::new(&mut call).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(call);
        assert!(dropped.load(Ordering::Relaxed));
    }
}

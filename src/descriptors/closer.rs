//! Closes descriptors that came from another process, away from the threads that serve calls.
//!
//! close(2) of a foreign descriptor can block: a TCP socket waits for its unsent data (SO_LINGER,
//! socket(7)), and a file of a FUSE file system waits for its server.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// So many closes can block before the next one waits.
const MAX_THREADS: usize = 8;

/// A thread without work for so long ends.
const IDLE: Duration = Duration::from_secs(5);

/// Whatever is dropped with the descriptors, on the closing thread.
type Job = (Vec<OwnedFd>, Box<dyn Send>);

static CLOSER: Closer = Closer { queue: Mutex::new(Queue::new()), work: Condvar::new() };

struct Closer {
    queue: Mutex<Queue>,
    work: Condvar,
}

struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Queue {
    const fn new() -> Self {
        Self { jobs: VecDeque::new(), threads: 0, idle: 0 }
    }
}

/// Closes `descriptors` on a thread of its own and drops `after` there, when they are closed. Never
/// blocks.
pub(crate) fn close(descriptors: Vec<OwnedFd>, after: impl Send + 'static) {
    if descriptors.is_empty() {
        return;
    }
    CLOSER.push((descriptors, Box::new(after)));
}

impl Closer {
    fn push(&'static self, job: Job) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.jobs.push_back(job);
        if queue.idle < queue.jobs.len() && queue.threads < MAX_THREADS {
            let thread = std::thread::Builder::new().name("samehost-close".into());
            if thread.spawn(|| self.run()).is_ok() {
                queue.threads += 1;
            } else if queue.threads == 0 {
                // Without any thread a close that may block is better than a leak.
                let jobs = std::mem::take(&mut queue.jobs);
                drop(queue);
                drop(jobs);
                return;
            }
        }
        drop(queue);
        self.work.notify_one();
    }

    fn run(&self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some((descriptors, after)) = queue.jobs.pop_front() {
                drop(queue);
                drop(descriptors);
                drop(after);
                queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            queue.idle += 1;
            let waited = self.work.wait_timeout_while(queue, IDLE, |queue| queue.jobs.is_empty());
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            queue.idle -= 1;
            if timeout.timed_out() && queue.jobs.is_empty() {
                queue.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn descriptors_are_closed_and_what_counts_them_goes_afterwards() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let (sender, closed) = mpsc::channel::<()>();
        close(vec![theirs.into()], sender);
        // The sender is dropped once the descriptor is closed.
        assert_eq!(closed.recv(), Err(mpsc::RecvError));
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_close_that_blocks_delays_no_other() {
        struct Blocks(mpsc::Receiver<()>);
        impl Drop for Blocks {
            fn drop(&mut self) {
                let _ = self.0.recv();
            }
        }
        let (release, blocked) = mpsc::channel();
        let descriptor = || -> OwnedFd { UnixStream::pair().unwrap().0.into() };
        close(vec![descriptor()], Blocks(blocked));
        let (sender, closed) = mpsc::channel::<()>();
        close(vec![descriptor()], sender);
        assert_eq!(closed.recv(), Err(mpsc::RecvError));
        drop(release);
    }
}

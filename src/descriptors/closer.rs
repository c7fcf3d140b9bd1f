//! Closes descriptors that came from another process, on other threads than those that serve calls.
//!
//! close(2) of a foreign descriptor can block: a TCP socket waits for its unsent data (SO_LINGER,
//! socket(7)), and a file of a FUSE file system waits for its server. Each user has some threads for that.
//! The last one of them does not let sockets linger, so that sockets never take them all. A socket
//! within the queue of a Unix socket that was sent is not found, and lingers.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::limits::MAX_PER_CALL;

/// When this many closes block, the next one waits, unless it is the only one of its user.
const MAX_THREADS: usize = 32;

/// The same number for one user's descriptors.
pub(crate) const MAX_THREADS_PER_USER: usize = 4;

/// If more descriptors of one user than this wait, no more are received: four of the largest sets.
const BEHIND: usize = 4 * MAX_PER_CALL;

/// A thread ends after this time without work.
const IDLE: Duration = Duration::from_secs(5);

/// The owner of descriptors: the user of the process that sent them. `None` means that they are
/// this process's own, or that the user is not known.
pub(crate) type PeerUid = Option<u32>;

/// A function that closes its descriptors. If its argument is `true`, it lets no socket linger.
type Job = Box<dyn FnOnce(bool) + Send>;

static CLOSER: LazyLock<Closer> = LazyLock::new(Closer::default);

#[derive(Default)]
struct Closer {
    queue: Mutex<CloseQueue>,
    work: Condvar,
}

#[derive(Default)]
struct CloseQueue {
    /// Users whose descriptors wait to be closed.
    users: HashMap<PeerUid, Jobs>,
    threads: usize,
    idle: usize,
    /// The process that made the threads.
    process: u32,
}

#[derive(Default)]
struct Jobs {
    /// The jobs that wait, each with the number of its descriptors.
    waiting: VecDeque<(usize, Job)>,
    /// How many threads close descriptors of this user now.
    busy: usize,
}

/// Closes `descriptors` of `user` on another thread, and drops `after` there when they are closed.
/// It never blocks. If one user's closes block, no other user's closes wait for them.
pub(crate) fn close(user: PeerUid, descriptors: Vec<OwnedFd>, after: impl Send + 'static) {
    close_by(user, descriptors, true, after);
}

/// Does the same and lets no socket linger.
pub(crate) fn close_without_lingering(
    user: PeerUid,
    descriptors: Vec<OwnedFd>,
    after: impl Send + 'static,
) {
    close_by(user, descriptors, false, after);
}

fn close_by(
    user: PeerUid,
    descriptors: Vec<OwnedFd>,
    may_linger: bool,
    after: impl Send + 'static,
) {
    if descriptors.is_empty() {
        return;
    }
    run(user, descriptors.len(), move |hurries| {
        if hurries || !may_linger {
            descriptors.iter().for_each(do_not_linger);
        }
        drop(descriptors);
        drop(after);
    });
}

/// Runs `job`, which closes `count` descriptors of `user`, in the same way. Its argument says
/// whether it must ensure that no socket lingers.
pub(crate) fn run(user: PeerUid, count: usize, job: impl FnOnce(bool) + Send + 'static) {
    CLOSER.push(user, (count, Box::new(job)));
}

/// Returns whether so many descriptors of `user` wait to be closed that no more should be received.
pub(crate) fn is_behind(user: PeerUid) -> bool {
    let queue = CLOSER.lock();
    let waiting = queue.users.get(&user).map(|jobs| &jobs.waiting);
    waiting.is_some_and(|waiting| waiting.iter().map(|(count, _)| count).sum::<usize>() > BEHIND)
}

/// Lets close(2) of a socket return at once. That also holds for other descriptors of the socket:
/// if its sender still has one, its own close(2) leaves the unsent data to the kernel.
pub(crate) fn do_not_linger(descriptor: &OwnedFd) {
    // Other files than sockets have no such option.
    let _ = rustix::net::sockopt::set_socket_linger(descriptor, None);
}

impl Closer {
    fn push(&'static self, user: PeerUid, job: (usize, Job)) {
        let mut queue = self.lock();
        queue.note_process(std::process::id());
        let jobs = queue.users.entry(user).or_default();
        jobs.waiting.push_back(job);
        let is_unserved = jobs.busy == 0 && jobs.waiting.len() == 1;
        // A thread that was notified counts as idle until it has its job.
        if queue.idle < queue.may_begin() && (queue.threads < MAX_THREADS || is_unserved) {
            let thread = std::thread::Builder::new().name("samehost-close".into());
            if thread.spawn(|| self.run()).is_ok() {
                queue.threads += 1;
            } else if queue.threads == 0 {
                // If no thread can be made, a close that may block is better than a leak.
                let users = std::mem::take(&mut queue.users);
                drop(queue);
                users.into_values().flat_map(|jobs| jobs.waiting).for_each(|(_, job)| job(true));
                return;
            }
        }
        drop(queue);
        self.work.notify_one();
    }

    fn run(&self) {
        let mut queue = self.lock();
        loop {
            if let Some((user, job, is_last)) = queue.next() {
                drop(queue);
                job(is_last);
                queue = self.lock();
                queue.done(user);
                continue;
            }
            queue.idle += 1;
            let waited = self.work.wait_timeout_while(queue, IDLE, |queue| queue.may_begin() == 0);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            queue.idle -= 1;
            if timeout.timed_out() && queue.may_begin() == 0 {
                queue.threads -= 1;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, CloseQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CloseQueue {
    /// Forgets the threads if another process made them: a child has none of its parent's (fork(2)).
    fn note_process(&mut self, process: u32) {
        if std::mem::replace(&mut self.process, process) != process {
            (self.threads, self.idle) = (0, 0);
            self.users.values_mut().for_each(|jobs| jobs.busy = 0);
        }
    }

    /// Returns how many jobs may begin now.
    fn may_begin(&self) -> usize {
        self.users.values().map(Jobs::may_begin).sum()
    }

    /// Takes a job of the user that has the fewest threads. Also returns whether all threads are
    /// busy now.
    fn next(&mut self) -> Option<(PeerUid, Job, bool)> {
        let may_begin = self.users.iter_mut().filter(|(_, jobs)| jobs.may_begin() > 0);
        let (user, jobs) = may_begin.min_by_key(|(_, jobs)| jobs.busy)?;
        jobs.busy += 1;
        let is_last = jobs.busy == MAX_THREADS_PER_USER;
        let (_, job) = jobs.waiting.pop_front()?;
        Some((*user, job, is_last))
    }

    fn done(&mut self, user: PeerUid) {
        if let Some(jobs) = self.users.get_mut(&user) {
            jobs.busy -= 1;
            if jobs.busy == 0 && jobs.waiting.is_empty() {
                self.users.remove(&user);
            }
        }
    }
}

impl Jobs {
    fn may_begin(&self) -> usize {
        self.waiting.len().min(MAX_THREADS_PER_USER - self.busy)
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
        close(None, vec![theirs.into()], sender);
        // The sender is dropped once the descriptor is closed.
        assert_eq!(closed.recv(), Err(mpsc::RecvError));
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    }

    struct BlockedClose(mpsc::Receiver<()>);

    impl Drop for BlockedClose {
        fn drop(&mut self) {
            let _ = self.0.recv();
        }
    }

    fn descriptor() -> Vec<OwnedFd> {
        vec![UnixStream::pair().unwrap().0.into()]
    }

    fn is_closed(user: PeerUid) {
        let (sender, closed) = mpsc::channel::<()>();
        close(user, descriptor(), sender);
        assert_eq!(closed.recv(), Err(mpsc::RecvError));
    }

    #[test]
    fn a_child_whose_parent_had_threads_makes_its_own() {
        let closer: &'static Closer = Box::leak(Box::default());
        let (threads, idle, parent) = (MAX_THREADS, MAX_THREADS, std::process::id() + 1);
        *closer.lock() = CloseQueue { threads, idle, process: parent, ..CloseQueue::default() };
        let (closed, is_closed) = mpsc::channel();
        closer.push(None, (1, Box::new(move |_| closed.send(()).unwrap())));
        is_closed.recv_timeout(Duration::from_secs(20)).unwrap();
    }

    #[test]
    fn a_close_that_blocks_delays_no_other() {
        let (release, blocked) = mpsc::channel();
        close(Some(1), descriptor(), BlockedClose(blocked));
        is_closed(Some(1));
        drop(release);
    }

    #[test]
    fn sockets_with_unsent_data_do_not_take_all_threads_of_their_user() {
        use std::io::Write;
        use std::net::{TcpListener, TcpStream};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut others = Vec::new();
        for _ in 0..4 * MAX_THREADS_PER_USER {
            let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            others.push(listener.accept().unwrap());
            let time = Some(Duration::from_secs(600));
            rustix::net::sockopt::set_socket_linger(&socket, time).unwrap();
            socket.set_nonblocking(true).unwrap();
            while socket.write(&[0; 64 << 10]).is_ok() {}
            close(Some(4), vec![socket.into()], ());
        }
        is_closed(Some(4));
    }

    #[test]
    fn many_users_whose_closes_block_delay_no_other_user() {
        let mut release = Vec::new();
        let others = MAX_THREADS as u32 / MAX_THREADS_PER_USER as u32 + 2;
        for user in 100..100 + others {
            for _ in 0..MAX_THREADS_PER_USER {
                let (sender, blocked) = mpsc::channel();
                close(Some(user), descriptor(), BlockedClose(blocked));
                release.push(sender);
            }
        }
        is_closed(Some(5));
        drop(release);
    }

    #[test]
    fn a_user_whose_closes_block_delays_no_other_user() {
        let mut release = Vec::new();
        for _ in 0..2 * MAX_THREADS {
            let (sender, blocked) = mpsc::channel();
            close(Some(2), descriptor(), BlockedClose(blocked));
            release.push(sender);
        }
        is_closed(Some(3));
        is_closed(None);
        drop(release);
        is_closed(Some(2));
    }
}

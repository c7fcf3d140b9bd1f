//! [`Peak`]: notices that much less is held than before, or that many connections have ended, and has
//! freed memory given back to the system.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;

use super::{heap, large_buffers};

/// Freed memory is given back when the bytes held have fallen by this much.
const FALL: usize = 8 << 20;

/// It is also given back when so many connections have ended and no more end. Not all that their calls
/// took is counted, as messages that handlers had.
const ENDS: usize = 64;

/// The fall has to last this long, so that memory that is soon needed again is not given back.
const CALM: Duration = Duration::from_secs(3);

/// How many bytes are held, and how many were.
#[derive(Debug, Default)]
pub(super) struct Peak {
    held: AtomicUsize,
    /// The largest number since memory was last given back.
    highest: AtomicUsize,
    /// The largest number since the last check began.
    recent: AtomicUsize,
    /// How many connections have ended since memory was last given back.
    ends: AtomicUsize,
    /// Whether a [`Check`] goes on. All threads see the changes of this, `held` and `ends` in one order
    /// (SeqCst), so a fall at the end of a check begins the next check.
    is_checking: AtomicBool,
}

impl Peak {
    /// Returns how many bytes are held.
    #[inline]
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, bytes: usize) {
        let held = self.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.highest.fetch_max(held, Ordering::Relaxed);
        self.recent.fetch_max(held, Ordering::Relaxed);
    }

    pub(super) fn subtract(self: &Arc<Self>, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::SeqCst);
        self.check();
    }

    /// Notes that a connection has ended.
    pub(super) fn note_end(self: &Arc<Self>) {
        self.ends.fetch_add(1, Ordering::SeqCst);
        self.check();
    }

    /// Starts a task that checks, if there is something to check.
    fn check(self: &Arc<Self>) {
        let Some(first) = self.begin_check() else { return };
        // While the runtime shuts down, no task can do it.
        let Ok(runtime) = Handle::try_current() else { return };
        let peak = Arc::clone(self);
        runtime.spawn(async move {
            let mut next = Some(first);
            while let Some(check) = next {
                peak.look().await;
                drop(check);
                next = peak.begin_check();
            }
        });
    }

    /// Begins a check, if there is something to check and no other check goes on.
    fn begin_check(self: &Arc<Self>) -> Option<Check> {
        let begins = self.has_fallen() && !self.is_checking.swap(true, Ordering::SeqCst);
        begins.then(|| Check(Arc::clone(self)))
    }

    /// Returns whether memory may have to be given back.
    fn has_fallen(&self) -> bool {
        self.is_below(self.held.load(Ordering::SeqCst)) || self.ends.load(Ordering::SeqCst) >= ENDS
    }

    fn is_below(&self, held: usize) -> bool {
        self.highest.load(Ordering::Relaxed).saturating_sub(held) >= FALL
    }

    /// Gives memory back if little was held for a while, or if no more connections have ended.
    async fn look(&self) {
        let ends = self.ends.load(Ordering::Relaxed);
        self.recent.store(self.held(), Ordering::Relaxed);
        tokio::time::sleep(CALM).await;
        let recent = self.recent.load(Ordering::Relaxed);
        let have_ended = ends >= ENDS && ends == self.ends.load(Ordering::Relaxed);
        if self.is_below(recent) || have_ended {
            self.highest.store(recent, Ordering::Relaxed);
            self.ends.store(0, Ordering::Relaxed);
            give_back();
        }
    }
}

/// Gives freed memory back, on a thread of its own. If none can be made, this one does it: tokio would panic
/// if it could not make one of its own.
fn give_back() {
    let work = || {
        large_buffers::clear();
        heap::give_back();
    };
    if thread::Builder::new().name("samehost-memory".into()).spawn(work).is_err() {
        work();
    }
}

/// A check that goes on. It ends when it is dropped, be it by a runtime that shuts down.
struct Check(Arc<Peak>);

impl Drop for Check {
    fn drop(&mut self) {
        self.0.is_checking.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn highest(peak: &Peak) -> usize {
        peak.highest.load(Ordering::Relaxed)
    }

    fn is_checking(peak: &Peak) -> bool {
        peak.is_checking.load(Ordering::SeqCst)
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_given_back_when_a_fall_lasts() {
        let peak = Arc::new(Peak::default());
        peak.add(3 * FALL);
        peak.subtract(FALL - 1);
        assert!(!is_checking(&peak), "too small a fall");
        peak.subtract(2 * FALL - 9);
        peak.add(10);
        tokio::time::sleep(2 * CALM).await;
        assert_eq!(highest(&peak), 20, "given back");
        // Memory that rises and falls again is kept until it stays low.
        peak.add(3 * FALL);
        for _ in 0..10 {
            peak.subtract(3 * FALL);
            tokio::time::sleep(CALM / 2).await;
            peak.add(3 * FALL);
        }
        assert_eq!(highest(&peak), 3 * FALL + 20);
        peak.subtract(3 * FALL);
        tokio::time::sleep(3 * CALM).await;
        assert_eq!(highest(&peak), 20);
        assert!(!is_checking(&peak));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_given_back_when_many_connections_have_ended() {
        let peak = Arc::new(Peak::default());
        let ends = || peak.ends.load(Ordering::Relaxed);
        (1..ENDS).for_each(|_| peak.note_end());
        assert!(!is_checking(&peak), "too few");
        // While more of them end, it waits.
        for _ in 0..10 {
            peak.note_end();
            tokio::time::sleep(CALM / 2).await;
        }
        assert_eq!(ends(), ENDS + 9);
        tokio::time::sleep(3 * CALM).await;
        assert_eq!(ends(), 0, "given back");
        assert!(!is_checking(&peak));
    }

    #[test]
    fn a_runtime_that_shuts_down_during_a_check_leaves_the_next_one_to_another() {
        let peak = Arc::new(Peak::default());
        for _ in 0..2 {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                peak.add(2 * FALL);
                peak.subtract(2 * FALL);
                tokio::task::yield_now().await;
            });
            assert!(is_checking(&peak), "a task does it");
            drop(runtime);
            assert!(!is_checking(&peak));
        }
    }
}

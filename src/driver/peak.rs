//! [`Peak`]: notices that much less is held than before, or that many connections have ended, and has
//! freed memory given back to the system.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

/// The largest number of bytes that was held.
#[derive(Debug, Default)]
pub(super) struct Peak {
    /// The largest since memory was last given back.
    highest: AtomicUsize,
    /// The largest since the last check.
    recent: AtomicUsize,
    now: AtomicUsize,
    /// How many connections have ended since memory was last given back.
    ends: AtomicUsize,
    /// Whether a task checks that the fall lasts.
    watched: AtomicBool,
}

impl Peak {
    /// Notes how much is held now, which is more than before.
    pub(super) fn rise(&self, held: usize) {
        self.now.store(held, Ordering::Relaxed);
        self.highest.fetch_max(held, Ordering::Relaxed);
        self.recent.fetch_max(held, Ordering::Relaxed);
    }

    /// Notes how much is held now, which is less than before.
    pub(super) fn fall(self: &Arc<Self>, held: usize) {
        self.now.store(held, Ordering::Relaxed);
        self.watch();
    }

    /// Notes that a connection has ended.
    pub(super) fn note_end(self: &Arc<Self>) {
        self.ends.fetch_add(1, Ordering::Relaxed);
        self.watch();
    }

    /// Starts a task that checks, if there is something to check.
    fn watch(self: &Arc<Self>) {
        if !self.begins_watch() {
            return;
        }
        // While the runtime shuts down, no task can do it.
        let Ok(runtime) = Handle::try_current() else {
            self.watched.store(false, Ordering::Relaxed);
            return;
        };
        let peak = Arc::clone(self);
        runtime.spawn(async move {
            loop {
                peak.look().await;
                peak.watched.store(false, Ordering::Relaxed);
                if !peak.begins_watch() {
                    break;
                }
            }
        });
    }

    /// Returns whether there is something to check, and no other task does it.
    fn begins_watch(&self) -> bool {
        let now = self.now.load(Ordering::Relaxed);
        (self.is_below(now) || self.ends.load(Ordering::Relaxed) >= ENDS)
            && !self.watched.swap(true, Ordering::Relaxed)
    }

    fn is_below(&self, held: usize) -> bool {
        self.highest.load(Ordering::Relaxed).saturating_sub(held) >= FALL
    }

    /// Gives memory back if little was held for a while, or if no more connections have ended.
    async fn look(&self) {
        let ends = self.ends.load(Ordering::Relaxed);
        self.recent.store(self.now.load(Ordering::Relaxed), Ordering::Relaxed);
        tokio::time::sleep(CALM).await;
        let recent = self.recent.load(Ordering::Relaxed);
        let have_ended = ends >= ENDS && ends == self.ends.load(Ordering::Relaxed);
        if self.is_below(recent) || have_ended {
            self.highest.store(recent, Ordering::Relaxed);
            self.ends.store(0, Ordering::Relaxed);
            // This fails only when the runtime ends.
            let given_back = tokio::task::spawn_blocking(|| {
                large_buffers::clear();
                heap::give_back();
            });
            let _ = given_back.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn highest(peak: &Peak) -> usize {
        peak.highest.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_given_back_when_a_fall_lasts() {
        let peak = Arc::new(Peak::default());
        peak.rise(3 * FALL);
        peak.fall(2 * FALL + 1);
        assert!(!peak.watched.load(Ordering::Relaxed), "too small a fall");
        peak.fall(10);
        peak.rise(20);
        tokio::time::sleep(2 * CALM).await;
        assert_eq!(highest(&peak), 20, "given back");
        // Memory that rises and falls again is kept until it stays low.
        peak.rise(3 * FALL);
        for _ in 0..10 {
            peak.fall(10);
            tokio::time::sleep(CALM / 2).await;
            peak.rise(3 * FALL);
        }
        assert_eq!(highest(&peak), 3 * FALL);
        peak.fall(10);
        tokio::time::sleep(3 * CALM).await;
        assert_eq!(highest(&peak), 10);
        assert!(!peak.watched.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_given_back_when_many_connections_have_ended() {
        let peak = Arc::new(Peak::default());
        let ends = || peak.ends.load(Ordering::Relaxed);
        (1..ENDS).for_each(|_| peak.note_end());
        assert!(!peak.watched.load(Ordering::Relaxed), "too few");
        // While more of them end, it waits.
        for _ in 0..10 {
            peak.note_end();
            tokio::time::sleep(CALM / 2).await;
        }
        assert_eq!(ends(), ENDS + 9);
        tokio::time::sleep(3 * CALM).await;
        assert_eq!(ends(), 0, "given back");
        assert!(!peak.watched.load(Ordering::Relaxed));
    }
}

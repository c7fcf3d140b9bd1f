//! [`SlowMethods`]: the methods of a connection whose handlers are not polled in place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use http::uri::PathAndQuery;

/// On a runtime of several threads, if a method's handler takes longer than this in place twice in
/// a row, its later calls get a task of their own. So the connection's other calls need not wait for
/// it.
const SLOW: Duration = Duration::from_micros(100);

/// After so many runs in a row that took no longer in a task of their own, the method is polled in
/// place again. The time is what a clock shows, so a quick handler is slow if the kernel runs another
/// thread meanwhile, which happens where there are more threads than CPUs.
const QUICK_RUNS: u8 = 8;

/// The maximum number of slow methods that a connection remembers.
const SLOW_METHODS: usize = 64;

/// The methods of a connection whose handlers delay its task.
#[derive(Default)]
pub(super) struct SlowMethods {
    known: Vec<(PathAndQuery, Arc<QuickRuns>)>,
    /// A method that was slow when it last ran in place. One slow run may be chance.
    suspect: Option<PathAndQuery>,
}

/// How many runs in a row of a slow method were quick in tasks of their own.
#[derive(Default)]
pub(super) struct QuickRuns(AtomicU8);

impl QuickRuns {
    /// Notes how long a handler took in a task of its own.
    pub(super) fn note(&self, time: Duration) {
        if time > SLOW {
            self.0.store(0, Ordering::Relaxed);
        } else {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl SlowMethods {
    /// If calls of this method get a task of their own, returns what notes how long they take there.
    #[inline]
    pub(super) fn find(&mut self, path: &PathAndQuery) -> Option<Arc<QuickRuns>> {
        if self.known.is_empty() { None } else { self.find_known(path) }
    }

    fn find_known(&mut self, path: &PathAndQuery) -> Option<Arc<QuickRuns>> {
        let index = self.known.iter().position(|(known, _)| known == path)?;
        let runs = &self.known[index].1;
        if runs.0.load(Ordering::Relaxed) < QUICK_RUNS {
            return Some(Arc::clone(runs));
        }
        self.known.swap_remove(index);
        None
    }

    /// Notes how long a handler took in place.
    pub(super) fn note(&mut self, path: PathAndQuery, time: Duration) {
        let suspected = self.suspect.as_ref() == Some(&path);
        match (time > SLOW, suspected) {
            (true, true) if self.known.len() < SLOW_METHODS => {
                self.suspect = None;
                self.known.push((path, Arc::default()));
            }
            (true, _) => self.suspect = Some(path),
            (false, true) => self.suspect = None,
            (false, false) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(1);
    const SHORT: Duration = Duration::from_micros(1);

    #[test]
    fn a_method_is_slow_after_two_slow_runs_in_a_row_until_several_were_quick() {
        let mut slow = SlowMethods::default();
        let (path, other) = (PathAndQuery::from_static("/a/A"), PathAndQuery::from_static("/a/B"));
        for time in [LONG, SHORT, LONG] {
            slow.note(path.clone(), time);
            assert!(slow.find(&path).is_none());
        }
        slow.note(path.clone(), LONG);
        let runs = slow.find(&path).unwrap();
        assert!(slow.find(&other).is_none());
        for time in [SHORT; QUICK_RUNS as usize - 1].into_iter().chain([LONG]) {
            runs.note(time);
            assert!(slow.find(&path).is_some());
        }
        for _ in 0..QUICK_RUNS {
            assert!(slow.find(&path).is_some());
            runs.note(SHORT);
        }
        assert!(slow.find(&path).is_none());
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut slow = SlowMethods::default();
        let path = |method: usize| PathAndQuery::try_from(format!("/a/{method}")).unwrap();
        for method in 0..=SLOW_METHODS {
            slow.note(path(method), LONG);
            slow.note(path(method), LONG);
        }
        assert!(slow.find(&path(SLOW_METHODS - 1)).is_some());
        assert!(slow.find(&path(SLOW_METHODS)).is_none());
    }
}

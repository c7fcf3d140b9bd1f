//! [`SlowMethods`]: the methods of a connection whose handlers are not polled in place.

use std::time::Duration;

use http::uri::PathAndQuery;

/// On a runtime of several threads, a method whose handler took longer than this in place twice in a
/// row has a task of its own from then on, so that the connection's other calls need not wait for it.
const SLOW: Duration = Duration::from_micros(100);

/// Methods of a connection that are known to be slow, at most.
const SLOW_METHODS: usize = 64;

/// The methods of a connection whose handlers hold its task up.
#[derive(Default)]
pub(super) struct SlowMethods {
    known: Vec<PathAndQuery>,
    /// Was slow when it last ran in place: once may be chance.
    suspect: Option<PathAndQuery>,
}

impl SlowMethods {
    pub(super) fn contains(&self, path: &PathAndQuery) -> bool {
        self.known.contains(path)
    }

    /// A handler took so long in place.
    pub(super) fn note(&mut self, path: PathAndQuery, time: Duration) {
        let suspected = self.suspect.as_ref() == Some(&path);
        match (time > SLOW, suspected) {
            (true, true) if self.known.len() < SLOW_METHODS => {
                self.suspect = None;
                self.known.push(path);
            }
            (true, _) => self.suspect = Some(path),
            (false, true) => self.suspect = None,
            (false, false) => {}
        }
    }
}

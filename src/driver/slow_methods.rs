//! [`SlowMethods`]: the methods of a connection whose handlers are not polled in place.

use std::time::Duration;

use http::uri::PathAndQuery;

/// On a runtime of several threads, if a method's handler takes longer than this in place twice in
/// a row, all its later calls get a task of their own. So the connection's other calls need not
/// wait for it.
const SLOW: Duration = Duration::from_micros(100);

/// The maximum number of slow methods that a connection remembers.
const SLOW_METHODS: usize = 64;

/// The methods of a connection whose handlers delay its task.
#[derive(Default)]
pub(super) struct SlowMethods {
    known: Vec<PathAndQuery>,
    /// A method that was slow when it last ran in place. One slow run may be chance.
    suspect: Option<PathAndQuery>,
}

impl SlowMethods {
    pub(super) fn contains(&self, path: &PathAndQuery) -> bool {
        self.known.contains(path)
    }

    /// Notes how long a handler took in place.
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

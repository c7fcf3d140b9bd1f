//! [`Usage`]: what a process has used up so far, by getrusage(2).

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

/// Totals since the process started.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Usage {
    /// User and system time of all threads.
    pub(super) cpu_us: i64,
    pub(super) voluntary_context_switches: i64,
    pub(super) involuntary_context_switches: i64,
    pub(super) max_rss_kib: i64,
}

impl Usage {
    pub(super) fn of_this_process() -> std::io::Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        Ok(Self {
            cpu_us: (usage.user_time() + usage.system_time()).num_microseconds(),
            voluntary_context_switches: usage.voluntary_context_switches(),
            involuntary_context_switches: usage.involuntary_context_switches(),
            max_rss_kib: usage.max_rss(),
        })
    }

    /// CPU time between an earlier look and this one, for each of so many calls.
    pub(super) fn cpu_us_per_call(&self, earlier: &Self, calls: u64) -> f64 {
        (self.cpu_us - earlier.cpu_us) as f64 / calls as f64
    }
}

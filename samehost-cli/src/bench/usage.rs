//! [`Usage`]: what a process has used so far, from getrusage(2) and proc(5).

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

use super::quantile::quantile;

/// Totals of all threads since the process started.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Usage {
    user_us: i64,
    system_us: i64,
    /// Voluntary and involuntary context switches.
    context_switches: i64,
    /// Its resident memory. `None` if `/proc` is not mounted.
    resident_kib: Option<u64>,
}

impl Usage {
    pub(super) fn of_this_process() -> std::io::Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Ok(Self {
            user_us: usage.user_time().num_microseconds(),
            system_us: usage.system_time().num_microseconds(),
            context_switches: usage.voluntary_context_switches()
                + usage.involuntary_context_switches(),
            resident_kib: resident_kib(&status),
        })
    }

    /// Returns what was used since `earlier`, for each of `calls`.
    pub(super) fn per_call(&self, earlier: &Self, calls: u64) -> UsagePerCall {
        let each = |now: i64, then: i64| (now - then) as f64 / calls as f64;
        UsagePerCall {
            user_us: each(self.user_us, earlier.user_us),
            system_us: each(self.system_us, earlier.system_us),
            context_switches: each(self.context_switches, earlier.context_switches),
            resident_mib: self.resident_kib.map_or(f64::NAN, |kib| kib as f64 / 1024.0),
        }
    }
}

/// What one process uses for a call.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct UsagePerCall {
    /// CPU time in the program.
    pub(super) user_us: f64,
    /// CPU time in the kernel.
    pub(super) system_us: f64,
    pub(super) context_switches: f64,
    /// The process's resident memory after the calls, not per call. NaN if unknown.
    pub(super) resident_mib: f64,
}

impl UsagePerCall {
    pub(super) fn cpu_us(&self) -> f64 {
        self.user_us + self.system_us
    }

    /// Returns the median of each figure.
    pub(super) fn median(several: impl Iterator<Item = Self> + Clone) -> Self {
        let over = |figure: fn(&Self) -> f64| {
            let values = several.clone().map(|one| figure(&one)).collect();
            quantile(0.5, values).unwrap_or(f64::NAN)
        };
        Self {
            user_us: over(|one| one.user_us),
            system_us: over(|one| one.system_us),
            context_switches: over(|one| one.context_switches),
            resident_mib: over(|one| one.resident_mib),
        }
    }
}

fn resident_kib(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_memory_is_found() {
        assert_eq!(resident_kib("VmHWM:\t    9000 kB\nVmRSS:\t    8123 kB\n"), Some(8123));
        assert_eq!(resident_kib(""), None);
        assert!(Usage::of_this_process().unwrap().resident_kib.unwrap() > 0);
    }

    #[test]
    fn what_was_used_is_shared_among_the_calls() {
        let earlier =
            Usage { user_us: 100, system_us: 10, context_switches: 1, resident_kib: Some(1) };
        let now =
            Usage { user_us: 300, system_us: 50, context_switches: 5, resident_kib: Some(2048) };
        let used = now.per_call(&earlier, 4);
        assert_eq!((used.user_us, used.system_us, used.cpu_us()), (50.0, 10.0, 60.0));
        assert_eq!((used.context_switches, used.resident_mib), (1.0, 2.0));
    }
}

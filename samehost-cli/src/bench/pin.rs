//! [`Pin`]: the CPUs for server and client.

use std::fmt;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::failure::Failure;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pin {
    pub(super) server: usize,
    pub(super) client: usize,
}

impl Pin {
    /// Parses `SERVER_CPU,CLIENT_CPU`. This process must be able to use both.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no pair of CPUs: write SERVER_CPU,CLIENT_CPU");
        let (server, client) = text.split_once(',').ok_or_else(wrong)?;
        let [server, client] =
            [server, client].map(|cpu| cpu.parse::<usize>().map_err(|_| wrong()));
        let pin = Self { server: server?, client: client? };
        let usable = sched_getaffinity(None).map_err(|errno| errno.to_string())?;
        for cpu in [pin.server, pin.client] {
            if cpu >= CpuSet::MAX_CPU || !usable.is_set(cpu) {
                let usable: Vec<_> =
                    (0..CpuSet::MAX_CPU).filter(|cpu| usable.is_set(*cpu)).collect();
                return Err(format!("there is no CPU {cpu} for this process, only {usable:?}"));
            }
        }
        Ok(pin)
    }

    /// Returns whether neither process can run while the other one does.
    pub(super) fn is_one_cpu(self) -> bool {
        self.server == self.client
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_one_cpu() {
            true => write!(f, "both on CPU {}", self.server),
            false => {
                write!(f, "the server on CPU {}, the client on CPU {}", self.server, self.client)
            }
        }
    }
}

/// Keeps this thread, and the threads that it starts from now on, on one CPU.
pub(super) fn pin_to(cpu: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
        .map_err(|errno| Failure::Failed(format!("cannot pin to CPU {cpu}: {errno}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cpus_are_a_pair() {
        let usable = sched_getaffinity(None).unwrap();
        let cpu = (0..CpuSet::MAX_CPU).find(|cpu| usable.is_set(*cpu)).unwrap();
        let pin = Pin::parse(&format!("{cpu},{cpu}")).unwrap();
        assert_eq!(pin, Pin { server: cpu, client: cpu });
        assert!(pin.is_one_cpu());
        assert_eq!(pin.to_string(), format!("both on CPU {cpu}"));
        for text in ["", "0", "0,", ",0", "0,1,2", "a,b", "0,99999", "-1,0"] {
            assert!(Pin::parse(text).is_err(), "{text}");
        }
    }
}

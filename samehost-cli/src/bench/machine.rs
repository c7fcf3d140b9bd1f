//! [`Machine`]: the facts about this host and this build that the figures depend on.

use std::fs;
use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};

/// Facts that are unknown are `None`.
#[derive(Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Machine {
    kernel: Option<String>,
    architecture: String,
    /// The model's name.
    cpu: Option<String>,
    /// How many CPUs this process may use.
    cpus: Option<usize>,
    /// Whether the CPU reports that it is a virtual machine's.
    virtual_machine: Option<bool>,
    /// The policy that chooses the CPU's frequency.
    governor: Option<String>,
    memory_mib: Option<u64>,
    /// The load of the last minute, before the first call.
    load: Option<f64>,
    samehost: String,
    release_build: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            kernel: None,
            architecture: std::env::consts::ARCH.to_owned(),
            cpu: None,
            cpus: None,
            virtual_machine: None,
            governor: None,
            memory_mib: None,
            load: None,
            samehost: env!("CARGO_PKG_VERSION").to_owned(),
            release_build: !cfg!(debug_assertions),
        }
    }
}

impl Machine {
    pub(super) fn this() -> Self {
        let word =
            |path| Some(fs::read_to_string(path).ok()?.split_whitespace().next()?.to_owned());
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            kernel: word("/proc/sys/kernel/osrelease"),
            cpu: field(&cpuinfo, "model name").map(str::to_owned),
            cpus: available_parallelism().ok().map(Into::into),
            virtual_machine: field(&cpuinfo, "flags").map(|flags| flags.contains("hypervisor")),
            governor: word("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            memory_mib: field(&meminfo, "MemTotal")
                .and_then(|size| size.strip_suffix(" kB")?.parse::<u64>().ok())
                .map(|kib| kib / 1024),
            load: word("/proc/loadavg").and_then(|load| load.parse().ok()),
            ..Self::default()
        }
    }

    /// Returns the load before the first call and the number of CPUs, if the load was larger.
    pub(super) fn overload(&self) -> Option<(f64, usize)> {
        let (load, cpus) = (self.load?, self.cpus?);
        (load > cpus as f64).then_some((load, cpus))
    }

    /// Returns whether the figures of the two can be compared at all.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (&self.cpu, self.cpus, &self.architecture) == (&other.cpu, other.cpus, &other.architecture)
    }

    /// Returns a short text: the processor, the kernel, and what else determines the figures.
    pub(super) fn in_short(&self) -> String {
        let cpus = self.cpus.map_or(String::new(), |cpus| format!("{cpus} × "));
        let cpu = self.cpu.as_deref().unwrap_or(&self.architecture);
        let mut text = cpus + &cpu.replace("(R)", "").replace("(TM)", "");
        if self.virtual_machine == Some(true) {
            text += ", virtual machine";
        }
        // The distribution adds what follows the version.
        if let Some(version) = self.kernel.as_ref().and_then(|kernel| kernel.split('-').next()) {
            text += &format!(", Linux {version}");
        }
        if !self.release_build {
            text += ", debug build";
        }
        text
    }

    /// Returns the known facts by name, for people.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let cpus = self.cpus.map_or(String::new(), |cpus| format!("{cpus} × "));
        let cpu = self.cpu.as_deref().unwrap_or(&self.architecture);
        let mut facts = vec![("CPUs", format!("{cpus}{cpu}"))];
        if self.virtual_machine == Some(true) {
            facts.push(("Virtual machine", "yes".to_owned()));
        }
        let build = if self.release_build { "release" } else { "debug" };
        let optional = [
            ("Governor", self.governor.clone()),
            ("Memory", self.memory_mib.map(|mib| format!("{:.1} GiB", mib as f64 / 1024.0))),
            ("Kernel", self.kernel.as_ref().map(|kernel| format!("Linux {kernel}"))),
            ("Load before", self.load.map(|load| format!("{load:.2}"))),
            ("samehost", Some(format!("{}, {build} build", self.samehost))),
        ];
        facts.extend(optional.into_iter().filter_map(|(name, fact)| Some((name, fact?))));
        facts
    }
}

/// Returns a field of a file in `/proc` that has a name and a colon on each line. Not every
/// architecture has all fields.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Machine {
        pub(in super::super) fn with_load(load: f64, cpus: usize) -> Self {
            Self { load: Some(load), cpus: Some(cpus), ..Self::default() }
        }
    }

    #[test]
    fn the_cpu_has_its_name_where_the_kernel_tells_it() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nprocessor\t: 1\n";
        assert_eq!(field(text, "model name"), Some("Some CPU @ 2.00GHz"));
        assert_eq!(field("processor\t: 0\nBogoMIPS\t: 50.00\n", "model name"), None);
    }

    #[test]
    fn the_short_form_has_what_decides_figures() {
        let machine = Machine {
            cpu: Some("Some(R) CPU".to_owned()),
            cpus: Some(2),
            virtual_machine: Some(true),
            kernel: Some("6.1.2-dist-amd64".to_owned()),
            release_build: true,
            ..Machine::default()
        };
        assert_eq!(machine.in_short(), "2 × Some CPU, virtual machine, Linux 6.1.2");
        let machine = Machine { release_build: false, ..Machine::default() };
        assert_eq!(machine.in_short(), format!("{}, debug build", std::env::consts::ARCH));
    }

    #[test]
    fn facts_survive_the_file() {
        let machine = Machine::this();
        let read: Machine =
            serde_json::from_str(&serde_json::to_string(&machine).unwrap()).unwrap();
        assert_eq!(read.facts(), machine.facts());
        assert!(read.is_like(&machine));
        assert!(!Machine { cpus: Some(1 << 20), ..read }.is_like(&machine));
    }
}

//! [`Machine`]: the facts about this host that figures depend on.

use std::fs;
use std::thread::available_parallelism;

use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Machine {
    kernel: Option<String>,
    architecture: &'static str,
    /// The model's name.
    cpu: Option<String>,
    /// How many this process may use.
    cpus: Option<usize>,
}

impl Machine {
    pub(super) fn this() -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
        Self {
            kernel: kernel.map(|text| text.trim().to_owned()),
            architecture: std::env::consts::ARCH,
            cpu: fs::read_to_string("/proc/cpuinfo").ok().as_deref().and_then(model_name),
            cpus: available_parallelism().ok().map(Into::into),
        }
    }
}

/// Not every architecture has it in `/proc/cpuinfo`.
fn model_name(cpuinfo: &str) -> Option<String> {
    cpuinfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::model_name;

    #[test]
    fn the_cpu_has_its_name_where_the_kernel_tells_it() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nprocessor\t: 1\n";
        assert_eq!(model_name(text).as_deref(), Some("Some CPU @ 2.00GHz"));
        assert_eq!(model_name("processor\t: 0\nBogoMIPS\t: 50.00\n"), None);
    }
}

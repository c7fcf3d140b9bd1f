//! Describes a process by its entry in `/proc`.

use std::fs;

/// Returns a text such as `pid 12 (samehost serve unix:/x)`, or only the pid if the command line is
/// unknown.
pub(crate) fn described(pid: u32) -> String {
    let command = command_line(pid);
    match command {
        Some(command) => format!("pid {pid} ({command})"),
        None => format!("pid {pid}"),
    }
}

/// Returns the process's arguments, or its name if it has none, cut to the length of a line.
fn command_line(pid: u32) -> Option<String> {
    const LONGEST: usize = 60;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let arguments = String::from_utf8_lossy(&arguments);
    let mut text = arguments.trim_end_matches('\0').replace('\0', " ");
    if text.is_empty() {
        text = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned();
    }
    if text.chars().count() > LONGEST {
        text = text.chars().take(LONGEST - 1).chain(['…']).collect();
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_described_by_its_command() {
        let us = described(std::process::id());
        assert!(us.contains("samehost"), "{us}");
        assert!(us.chars().count() <= 80, "{us}");
        assert_eq!(described(u32::MAX), format!("pid {}", u32::MAX));
    }
}

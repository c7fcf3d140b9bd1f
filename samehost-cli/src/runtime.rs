//! The tokio runtime of a subcommand.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;

use tokio::runtime::Runtime;

use crate::failure::Failure;

/// How many file descriptors have to be left: for the runtime, its signals and a first socket.
const DESCRIPTORS: usize = 16;

/// Returns a single-threaded runtime for one thread, and a multi-threaded runtime for more. tokio
/// would panic, and wait for ever, if it could not start a thread or open what signals need. So both
/// are tried before.
pub(crate) fn new(threads: u16) -> Result<Runtime, Failure> {
    try_descriptors().map_err(|error| {
        Failure::Failed(format!(
            "fewer than {DESCRIPTORS} file descriptors are left ({error}): raise their limit \
             (ulimit -n)"
        ))
    })?;
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => {
            try_threads(threads).map_err(|error| {
                Failure::Failed(format!(
                    "--threads {threads}: so many threads cannot be started ({error}): give fewer, \
                     or raise their limit (ulimit -u, or pids.max of the control group)"
                ))
            })?;
            tokio::runtime::Builder::new_multi_thread()
        }
    };
    Ok(builder.worker_threads(usize::from(threads)).enable_all().build()?)
}

/// Opens so many descriptors and closes them.
fn try_descriptors() -> io::Result<()> {
    let opened: io::Result<Vec<_>> = (0..DESCRIPTORS).map(|_| File::open("/dev/null")).collect();
    opened.map(drop)
}

/// Starts so many threads, and one more for what blocks, and ends them.
fn try_threads(threads: u16) -> io::Result<()> {
    // No thread passes before all are there.
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let _closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..=threads {
            thread::Builder::new().spawn_scoped(scope, || drop(gate.lock()))?;
        }
        Ok(())
    })
}

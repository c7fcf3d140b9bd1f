//! The tokio runtime of a subcommand.

use tokio::runtime::Runtime;

/// A single-threaded runtime for one thread, else a pool of so many.
pub(crate) fn new(threads: u16) -> std::io::Result<Runtime> {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(usize::from(threads)).enable_all().build()
}

//! The tokio runtime of a subcommand.

use tokio::runtime::Runtime;

/// Returns a single-threaded runtime for one thread, and a multi-threaded runtime for more.
pub(crate) fn new(threads: u16) -> std::io::Result<Runtime> {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(usize::from(threads)).enable_all().build()
}

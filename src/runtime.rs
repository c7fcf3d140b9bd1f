//! On which kind of tokio's runtimes this runs.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Returns whether the current runtime has several threads. Outside of a runtime it may have.
pub(crate) fn has_several_threads() -> bool {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    !matches!(flavor, Ok(RuntimeFlavor::CurrentThread))
}

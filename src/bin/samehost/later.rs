//! Options of a later version: known, so that they are refused by name and not as a typing error.

use crate::Failure;

/// Refuses the first of the options that was given.
pub(crate) fn refuse(options: &[(&str, bool)]) -> Result<(), Failure> {
    match options.iter().find(|(_, given)| *given) {
        Some((name, _)) => {
            Err(Failure::Usage(format!("{name} is not available in this version: leave it out")))
        }
        None => Ok(()),
    }
}

//! The limit that the kernel sets for descriptors.

/// The kernel does not send more with one message (SCM_MAX_FD, unix(7)).
pub(crate) const MAX_PER_CALL: usize = 253;

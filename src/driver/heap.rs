//! Gives freed memory back to the system, and has the `unsafe` code for it.
#![allow(unsafe_code, reason = "malloc_trim has no safe wrapper in a well-kept crate")]

/// Gives the pages that the C library's allocator keeps of what was freed back to the system. glibc
/// otherwise keeps all that lies below a block which is still in use. It locks the allocator's arenas
/// one by one, and takes as long as there is to give: not for an event loop.
#[cfg(target_env = "gnu")]
pub(super) fn give_back() {
    // SAFETY: malloc_trim(3) takes a number, touches nothing that is allocated, and may be called by
    // any thread at any time (MT-Safe).
    unsafe { nix::libc::malloc_trim(0) };
}

/// Other C libraries give memory back by themselves, or have no way to ask for it.
#[cfg(not(target_env = "gnu"))]
pub(super) fn give_back() {}

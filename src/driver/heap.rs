//! Gives freed memory back to the system. The `unsafe` code for that is here.
#![allow(unsafe_code, reason = "malloc_trim has no safe wrapper in a well-kept crate")]

/// Gives back the pages of freed memory that the C library's allocator keeps. Otherwise glibc keeps
/// everything that lies below a block in use. It locks the allocator's arenas one by one, and takes
/// longer the more there is to give back, so it must not run in an event loop.
#[cfg(target_env = "gnu")]
pub(super) fn give_back() {
    // SAFETY: malloc_trim(3) takes a number, touches nothing that is allocated, and may be called by
    // any thread at any time (MT-Safe).
    unsafe { nix::libc::malloc_trim(0) };
}

/// Other C libraries give memory back by themselves, or cannot be asked to.
#[cfg(not(target_env = "gnu"))]
pub(super) fn give_back() {}

//! The mapping of sealed memory, and its `unsafe` code.
#![allow(unsafe_code, reason = "a mapping is safe only because of the seals, which no type shows")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use bytes::Bytes;
use memmap2::MmapOptions;

/// Maps the first `len` bytes of `file`, which must have been checked by
/// [`SealedMemory::from_fd`](super::SealedMemory::from_fd) and have so many.
pub(super) fn read_only(file: &OwnedFd, len: usize) -> io::Result<Bytes> {
    if len == 0 {
        // mmap(2) refuses an empty mapping.
        return Ok(Bytes::new());
    }
    // SAFETY: a mapping is a `&[u8]`, which nothing may change or shorten while it lives. The file
    // is a memfd with F_SEAL_WRITE, so no descriptor and no mapping of any process can write to it,
    // F_SEAL_SHRINK, so the mapped pages stay within the file and reading them cannot raise SIGBUS,
    // and seals cannot be removed (fcntl(2)). The file system has been checked to be the kernel's
    // own tmpfs, which has no limit on its size that a read of a hole could meet. The mapping is
    // private because kernels before 6.7 refuse a shared one of a file with F_SEAL_WRITE.
    let mapping = unsafe { MmapOptions::new().len(len).map_copy_read_only(file.as_raw_fd()) }?;
    Ok(Bytes::from_owner(mapping))
}

//! [`SealedMemory`]: a payload in a memfd that nobody can change any more, so that it can be handed to
//! another process and read there without a copy.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{MemfdFlags, Mode, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, fstatfs};
use rustix::io::Errno;

mod map;

/// What a file of memory has to be sealed against before a reader may map it.
const NEEDED: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::WRITE);

/// How often the kernel is asked for the seals. One more attempt was enough in all cases that were seen,
/// one in some 10,000 payloads of 16 MiB.
const SEAL_ATTEMPTS: u32 = 5;

/// The file system of memfds with pages of the usual size (statfs(2), TMPFS_MAGIC).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Bytes in memory of their own, which have a file descriptor and can never change again.
///
/// The sender writes the payload once, however often it is sent. The receiver maps it, whatever its
/// size: nothing is copied. Sealed memory cannot be written a second time, so each new payload needs
/// a new one, whose pages the kernel has to clear first. For a payload that is sent once and is not
/// larger than some MiB, a message is faster.
///
/// A clone shares the memory. It exists until the last descriptor and the last mapping of it are
/// gone, at either end.
///
/// ```
/// # fn main() -> Result<(), samehost::SealedMemoryError> {
/// use samehost::SealedMemory;
///
/// let memory = SealedMemory::copy_from(b"a large payload")?;
/// // … the descriptor travels to another process, which has it as an `OwnedFd` …
/// let received = SealedMemory::from_fd(memory.into_fd()?)?;
/// assert_eq!(received.map(64 << 20)?, b"a large payload"[..]);
/// # Ok(()) }
/// ```
///
/// See memfd_create(2) and, for the seals, F_ADD_SEALS in fcntl(2).
#[doc(alias = "memfd")]
#[derive(Clone)]
pub struct SealedMemory {
    file: Arc<OwnedFd>,
    len: u64,
}

impl SealedMemory {
    /// Returns sealed memory with a copy of `bytes`.
    ///
    /// # Errors
    ///
    /// [`SealedMemoryErrorKind::Io`] if the kernel has no memory or no descriptor left.
    pub fn copy_from(bytes: &[u8]) -> Result<Self, SealedMemoryError> {
        let mut writer = Self::writer()?;
        writer.write_all(bytes)?;
        writer.seal()
    }

    /// Returns a writer for a payload that is made piece by piece.
    ///
    /// # Errors
    ///
    /// As [`copy_from`](Self::copy_from).
    pub fn writer() -> Result<SealedMemoryWriter, SealedMemoryError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = match rustix::fs::memfd_create("samehost", flags | MemfdFlags::NOEXEC_SEAL) {
            // Linux before 6.3 does not know the flag.
            Err(Errno::INVAL) => rustix::fs::memfd_create("samehost", flags),
            created => created,
        };
        Ok(SealedMemoryWriter { file: File::from(file.map_err(io::Error::from)?) })
    }

    /// Takes a received descriptor, after checking that it is memory which nobody can change: a
    /// memfd that is sealed against shrinking, growing and writing.
    ///
    /// These seals cannot be removed, so a reader's mapping never changes and never raises SIGBUS.
    ///
    /// # Errors
    ///
    /// - [`SealedMemoryErrorKind::NotMemory`] for anything that is no memfd, and for a memfd of huge
    ///   pages, whose holes can raise SIGBUS;
    /// - [`SealedMemoryErrorKind::NotSealed`] if one of the three seals is missing;
    /// - [`SealedMemoryErrorKind::Executable`] if it is sealed as a program (F_SEAL_EXEC).
    pub fn from_fd(file: OwnedFd) -> Result<Self, SealedMemoryError> {
        let seals = match fcntl_get_seals(&file) {
            // A file that cannot have seals answers EINVAL, and a descriptor that is only a path
            // EBADF (fcntl(2), open(2)).
            Err(Errno::INVAL | Errno::BADF) => return Err(MemoryProblem::NotMemory.into()),
            seals => seals.map_err(io::Error::from)?,
        };
        let file_system = fstatfs(&file).map_err(io::Error::from)?.f_type;
        if u64::try_from(file_system) != Ok(TMPFS_MAGIC) {
            return Err(MemoryProblem::NotMemory.into());
        }
        if !seals.contains(NEEDED) {
            return Err(MemoryProblem::NotSealed { missing: NEEDED.difference(seals) }.into());
        }
        let stat = fstat(&file).map_err(io::Error::from)?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        if seals.contains(SealFlags::EXEC) && mode.intersects(Mode::XUSR | Mode::XGRP | Mode::XOTH)
        {
            return Err(MemoryProblem::Executable.into());
        }
        // The length cannot change any more after the seals were seen.
        let len = u64::try_from(stat.st_size).map_err(|_| MemoryProblem::NotMemory)?;
        Ok(Self { file: Arc::new(file), len })
    }

    /// Returns the number of bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Maps the memory for reading if it has at most `limit` bytes.
    ///
    /// The limit guards the reader: a peer can send a memfd of many GiB that has no pages yet, and
    /// each page that the reader touches then is allocated and counted as the reader's.
    ///
    /// # Errors
    ///
    /// [`SealedMemoryErrorKind::TooLarge`] beyond the limit, [`SealedMemoryErrorKind::Io`] if there is
    /// no room for the mapping.
    pub fn map(&self, limit: u64) -> Result<MappedMemory, SealedMemoryError> {
        let too_large = MemoryProblem::TooLarge { len: self.len, limit };
        if self.len > limit {
            return Err(too_large.into());
        }
        let len = usize::try_from(self.len).map_err(|_| too_large)?;
        Ok(MappedMemory { bytes: map::read_only(&self.file, len)? })
    }

    /// Maps the memory if it has at most `limit` bytes, and decodes the message in it.
    ///
    /// Fields of the type [`Bytes`] are slices of the mapping: nothing of them is copied, however large
    /// they are (`configure().bytes(".")` of `samehost-build` gives `bytes` fields this type). All
    /// others are copied, `Vec<u8>` and `String` among them. The mapping ends with the last slice of it.
    ///
    /// The sender writes the encoded message: `SealedMemory::copy_from(&message.encode_to_vec())`.
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map), and [`SealedMemoryErrorKind::NotDecodable`] if the bytes are no message of
    /// this type.
    ///
    /// # Example
    ///
    /// ```
    /// # fn main() -> Result<(), samehost::SealedMemoryError> {
    /// use prost::Message;
    /// use prost::bytes::Bytes;
    /// use samehost::SealedMemory;
    ///
    /// // `Bytes` itself is the message of one field, google.protobuf.BytesValue.
    /// let image = Bytes::from(vec![7; 100_000]);
    /// let memory = SealedMemory::copy_from(&image.encode_to_vec())?;
    /// // … its descriptor travels to another process …
    /// let received: Bytes = memory.decode(64 << 20)?;
    /// assert_eq!(received, image);
    /// # Ok(()) }
    /// ```
    pub fn decode<M>(&self, limit: u64) -> Result<M, SealedMemoryError>
    where
        M: prost::Message + Default,
    {
        let bytes = self.map(limit)?.into_bytes();
        M::decode(bytes).map_err(|error| MemoryProblem::NotDecodable(error).into())
    }

    /// Returns a descriptor of the memory, for sending it to another process.
    ///
    /// # Errors
    ///
    /// [`SealedMemoryErrorKind::Io`] if a clone shares the memory and no descriptor is left for a
    /// second one.
    pub fn into_fd(self) -> Result<OwnedFd, SealedMemoryError> {
        match Arc::try_unwrap(self.file) {
            Ok(file) => Ok(file),
            Err(shared) => Ok(shared.try_clone()?),
        }
    }
}

impl AsFd for SealedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl TryFrom<OwnedFd> for SealedMemory {
    type Error = SealedMemoryError;

    fn try_from(file: OwnedFd) -> Result<Self, Self::Error> {
        Self::from_fd(file)
    }
}

impl fmt::Debug for SealedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedMemory").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Takes a payload piece by piece, then [seals](Self::seal) it.
#[derive(Debug)]
pub struct SealedMemoryWriter {
    file: File,
}

impl SealedMemoryWriter {
    /// Ends the payload: from now on nobody can change it, this process included.
    ///
    /// It rarely blocks the thread for some 0.2 s: the kernel waits until it has no use of its own for the
    /// pages, and after that time this tries again.
    ///
    /// # Errors
    ///
    /// [`SealedMemoryErrorKind::Io`] if the kernel refuses the seals.
    pub fn seal(self) -> Result<SealedMemory, SealedMemoryError> {
        let seals = NEEDED | SealFlags::SEAL;
        while_busy(|| fcntl_add_seals(&self.file, seals)).map_err(io::Error::from)?;
        SealedMemory::from_fd(self.file.into())
    }
}

/// Adds seals, again if the kernel itself uses the pages, as it does now and then with many of them.
/// Nobody else has the descriptor or a mapping (EBUSY, F_SEAL_WRITE in fcntl(2)).
fn while_busy(mut add_seals: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    for _ in 1..SEAL_ATTEMPTS {
        match add_seals() {
            Err(Errno::BUSY) => {}
            added => return added,
        }
    }
    add_seals()
}

impl Write for SealedMemoryWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.file.write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The bytes of [`SealedMemory`], mapped for reading. They are there as long as this value is, even
/// after the memory's own value is dropped.
#[derive(Clone)]
pub struct MappedMemory {
    bytes: Bytes,
}

impl MappedMemory {
    /// Returns the mapping as [`Bytes`], without a copy. The last slice of them ends the mapping.
    ///
    /// [`SealedMemory::decode`] decodes a message from it, whose fields of this type are not copied
    /// either.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

impl std::ops::Deref for MappedMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for MappedMemory {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq<[u8]> for MappedMemory {
    fn eq(&self, other: &[u8]) -> bool {
        self.bytes == *other
    }
}

impl fmt::Debug for MappedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedMemory").field("len", &self.len()).finish()
    }
}

/// Why memory cannot be made, taken or mapped. Its `Debug` text is its `Display` text.
#[derive(thiserror::Error)]
#[error("{problem}")]
pub struct SealedMemoryError {
    problem: MemoryProblem,
}

/// The kind of a [`SealedMemoryError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SealedMemoryErrorKind {
    /// The descriptor is not a memfd, or is one of huge pages.
    NotMemory,
    /// A seal against shrinking, growing or writing is missing.
    NotSealed,
    /// The memory is sealed as a program.
    Executable,
    /// The memory is larger than the reader's limit.
    TooLarge,
    /// The bytes are not a message of the requested type.
    NotDecodable,
    /// A system call failed.
    Io,
}

impl SealedMemoryError {
    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> SealedMemoryErrorKind {
        match self.problem {
            MemoryProblem::NotMemory => SealedMemoryErrorKind::NotMemory,
            MemoryProblem::NotSealed { .. } => SealedMemoryErrorKind::NotSealed,
            MemoryProblem::Executable => SealedMemoryErrorKind::Executable,
            MemoryProblem::TooLarge { .. } => SealedMemoryErrorKind::TooLarge,
            MemoryProblem::NotDecodable(_) => SealedMemoryErrorKind::NotDecodable,
            MemoryProblem::Io(_) => SealedMemoryErrorKind::Io,
        }
    }
}

impl fmt::Debug for SealedMemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<MemoryProblem> for SealedMemoryError {
    fn from(problem: MemoryProblem) -> Self {
        Self { problem }
    }
}

impl From<io::Error> for SealedMemoryError {
    fn from(error: io::Error) -> Self {
        MemoryProblem::Io(error).into()
    }
}

#[derive(Debug, thiserror::Error)]
enum MemoryProblem {
    #[error(
        "the descriptor is no memory that can be mapped safely: send a memfd (memfd_create(2))"
    )]
    NotMemory,
    #[error("the memfd lacks {}: its sender has to add F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_WRITE", names(*missing))]
    NotSealed { missing: SealFlags },
    #[error("the memfd is sealed as a program (F_SEAL_EXEC), which a payload is not")]
    Executable,
    #[error(
        "the memory has {len} bytes, more than the reader's limit of {limit}: give the reader \
        a larger one"
    )]
    TooLarge { len: u64, limit: u64 },
    #[error("the memory does not hold the message that was expected: {0}")]
    NotDecodable(prost::DecodeError),
    #[error("sealed memory: {0}")]
    Io(io::Error),
}

/// Returns the names of seals in fcntl(2).
fn names(seals: SealFlags) -> String {
    let named = [
        (SealFlags::SHRINK, "F_SEAL_SHRINK"),
        (SealFlags::GROW, "F_SEAL_GROW"),
        (SealFlags::WRITE, "F_SEAL_WRITE"),
    ];
    let names: Vec<_> =
        named.iter().filter(|(seal, _)| seals.contains(*seal)).map(|(_, name)| *name).collect();
    names.join(" and ")
}

#[cfg(test)]
mod tests;

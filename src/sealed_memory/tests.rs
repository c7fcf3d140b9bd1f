use std::os::fd::AsRawFd;

use rustix::fs::{FallocateFlags, OFlags, fallocate, ftruncate, memfd_create};

use super::SealedMemoryErrorKind::{Executable, Io, NotMemory, NotSealed, TooLarge};
use super::*;

const LIMIT: u64 = 1 << 20;

fn memfd() -> OwnedFd {
    memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap()
}

fn sealed(file: OwnedFd, seals: SealFlags) -> Result<SealedMemory, SealedMemoryError> {
    fcntl_add_seals(&file, seals).unwrap();
    SealedMemory::from_fd(file)
}

#[test]
fn a_payload_arrives_as_it_was_written() {
    for payload in [&b""[..], b"x", &[7; 100_000]] {
        let memory = SealedMemory::copy_from(payload).unwrap();
        assert_eq!(memory.len(), payload.len() as u64);
        assert_eq!(memory.is_empty(), payload.is_empty());
        let received = SealedMemory::from_fd(memory.clone().into_fd().unwrap()).unwrap();
        let mapped = received.map(LIMIT).unwrap();
        drop((memory, received));
        assert_eq!(mapped, *payload);
        assert_eq!(mapped.into_bytes(), *payload);
    }
}

#[test]
fn a_writer_takes_pieces_of_any_size() {
    let mut writer = SealedMemory::writer().unwrap();
    for piece in [&b"pi"[..], b"", b"ece", &[b'!'; 5000]] {
        writer.write_all(piece).unwrap();
    }
    let mapped = writer.seal().unwrap().map(LIMIT).unwrap();
    assert_eq!(mapped.len(), 5005);
    assert_eq!(mapped[..6], *b"piece!");
}

#[test]
fn a_seal_is_tried_again_while_the_kernel_uses_the_pages() {
    let attempts_until = |busy: u32, end: Result<(), Errno>| {
        let mut attempts = 0;
        let added = while_busy(|| {
            attempts += 1;
            if attempts > busy { end } else { Err(Errno::BUSY) }
        });
        (added, attempts)
    };
    assert_eq!(attempts_until(0, Ok(())), (Ok(()), 1));
    assert_eq!(attempts_until(2, Ok(())), (Ok(()), 3));
    assert_eq!(attempts_until(1, Err(Errno::PERM)), (Err(Errno::PERM), 2));
    assert_eq!(attempts_until(u32::MAX, Ok(())), (Err(Errno::BUSY), SEAL_ATTEMPTS));
}

#[test]
fn nobody_can_change_it_afterwards_not_even_through_a_descriptor_from_before() {
    let mut writer = SealedMemory::writer().unwrap();
    writer.write_all(&[1; 8192]).unwrap();
    let mut before = writer.file.try_clone().unwrap();
    let memory = writer.seal().unwrap();
    let mapped = memory.map(LIMIT).unwrap();

    assert_eq!(before.write(b"2").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(ftruncate(&before, 0), Err(Errno::PERM));
    assert_eq!(ftruncate(&before, 9000), Err(Errno::PERM));
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert_eq!(fallocate(&before, hole, 0, 4096), Err(Errno::PERM));
    assert_eq!(fcntl_add_seals(&before, SealFlags::FUTURE_WRITE), Err(Errno::PERM));
    assert_eq!(mapped, [1; 8192][..]);
}

#[test]
fn memory_with_a_seal_missing_is_refused_and_the_error_names_it() {
    for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::WRITE] {
        // A seal against future writes leaves the writable mappings that exist.
        let seals = NEEDED.difference(missing) | SealFlags::FUTURE_WRITE;
        let error = sealed(memfd(), seals).unwrap_err();
        assert_eq!(error.kind(), NotSealed);
        assert!(error.to_string().contains(&format!("lacks {}:", names(missing))), "{error}");
    }
    assert_eq!(SealedMemory::from_fd(memfd()).unwrap_err().kind(), NotSealed);
    assert!(sealed(memfd(), NEEDED).is_ok());
}

#[test]
fn what_is_no_memfd_is_refused() {
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = File::create(folder.path().join("file")).unwrap();
    let path_only = rustix::fs::open(
        format!("/proc/self/fd/{}", file.as_raw_fd()),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .unwrap();
    let (pipe, _writer) = std::io::pipe().unwrap();
    let null = File::open("/dev/null").unwrap();
    let shm = tempfile::tempfile_in("/dev/shm").unwrap();
    let folder = File::open(folder.path()).unwrap();
    for descriptor in
        [socket.into(), file.into(), path_only, pipe.into(), null.into(), folder.into()]
            as [OwnedFd; 6]
    {
        assert_eq!(SealedMemory::from_fd(descriptor).unwrap_err().kind(), NotMemory);
    }
    // A file on the same file system as memfds has seals, but not these.
    assert_eq!(SealedMemory::from_fd(shm.into()).unwrap_err().kind(), NotSealed);
}

#[test]
fn a_huge_hole_is_refused_by_the_limit() {
    let file = memfd();
    ftruncate(&file, 1 << 40).unwrap();
    let memory = sealed(file, NEEDED).unwrap();
    let error = memory.map(LIMIT).unwrap_err();
    assert_eq!(error.kind(), TooLarge);
    assert!(error.to_string().contains("1099511627776"), "{error}");
}

#[test]
fn a_hole_within_the_limit_reads_as_zeros() {
    let file = memfd();
    ftruncate(&file, LIMIT - 1).unwrap();
    let mapped = sealed(file, NEEDED).unwrap().map(LIMIT).unwrap();
    assert_eq!(mapped.len() as u64, LIMIT - 1);
    assert!(mapped.iter().all(|byte| *byte == 0));
}

#[test]
fn pages_of_huge_size_are_refused() {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
    // A kernel without huge pages has no such files.
    let Ok(file) = memfd_create("test", flags) else { return };
    assert_eq!(sealed(file, NEEDED).unwrap_err().kind(), NotMemory);
}

#[test]
fn a_sealed_program_is_refused() {
    let file = memfd();
    rustix::fs::fchmod(&file, Mode::RWXU).unwrap();
    // Linux before 6.3 does not know the seal.
    if fcntl_add_seals(&file, NEEDED | SealFlags::EXEC).is_ok() {
        assert_eq!(SealedMemory::from_fd(file).unwrap_err().kind(), Executable);
    }
}

#[test]
fn an_error_of_the_system_keeps_its_text() {
    let error = SealedMemoryError::from(io::Error::from(Errno::MFILE));
    assert_eq!(error.kind(), Io);
    assert!(format!("{error:?}").contains("Too many open files"), "{error:?}");
}

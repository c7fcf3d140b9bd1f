//! Checks the directories on the way to a socket file: whether they exist, and whether this user
//! may pass through them (path_resolution(7)).

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::{End, Steps, broken};

const STEP: &str = "directory";

/// Checks each directory from the root, or the working directory, to that of the file.
pub(super) fn walk(path: &Path, steps: &mut Steps) -> Result<(), End> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut so_far = PathBuf::new();
    for component in parent.unwrap_or(Path::new(".")).components() {
        so_far.push(component);
        look(&so_far, component, steps)?;
    }
    if let Some(mount) = mount_of(&so_far) {
        steps.good("mount", mount)?;
    }
    Ok(())
}

fn look(directory: &Path, component: Component<'_>, steps: &mut Steps) -> Result<(), End> {
    let shown = directory.display();
    let metadata = match std::fs::metadata(directory) {
        Ok(metadata) => metadata,
        Err(error) => return Err(missing(directory, &error).into()),
    };
    if !metadata.is_dir() {
        return Err(broken(
            STEP,
            format!("{shown} is {}, not a directory", kind(&metadata)),
            "check the address",
        )
        .into());
    }
    let owner = owner(&metadata);
    if accessat(CWD, directory, Access::EXEC_OK, AtFlags::EACCESS).is_err() {
        return Err(broken(
            STEP,
            format!("{shown} may not be entered by {} ({owner})", this_user()),
            format!("ask its owner for `chmod o+x {shown}`, or run as another user or group"),
        )
        .into());
    }
    let link = match (component, std::fs::read_link(directory)) {
        (Component::Normal(_), Ok(target)) => format!(", a link to {}", target.display()),
        _ => String::new(),
    };
    steps.good(STEP, format!("{shown}{link} ({owner})"))?;
    Ok(())
}

fn missing(directory: &Path, error: &io::Error) -> super::Broken {
    let shown = directory.display();
    match (std::fs::read_link(directory), error.kind()) {
        (Ok(target), io::ErrorKind::NotFound) => broken(
            STEP,
            format!("{shown} is a link to {}, which does not exist", target.display()),
            "create what it leads to, or mend the link",
        ),
        (_, io::ErrorKind::NotFound) => broken(
            STEP,
            format!("{shown} does not exist"),
            "create it, start the server that makes it, or check the address",
        ),
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            broken(STEP, format!("{shown} is a link that leads back to itself"), "mend the link")
        }
        _ => broken(STEP, format!("{shown}: {error}"), "check the address"),
    }
}

/// Returns the kind of a file as part of a sentence.
pub(super) fn kind(metadata: &Metadata) -> &'static str {
    use rustix::fs::FileType;
    match FileType::from_raw_mode(metadata.mode()) {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "something unknown",
    }
}

/// Returns mode and owner of a file, such as `mode 0755, root:root`.
pub(super) fn owner(metadata: &Metadata) -> String {
    let (user, group) = (user_name(metadata.uid()), group_name(metadata.gid()));
    format!("mode {:04o}, {user}:{group}", metadata.mode() & 0o7777)
}

pub(super) fn user_name(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}

pub(super) fn group_name(gid: u32) -> String {
    let group = nix::unistd::Group::from_gid(gid.into()).ok().flatten();
    group.map_or_else(|| gid.to_string(), |group| group.name)
}

pub(super) fn this_user() -> String {
    let uid = rustix::process::geteuid().as_raw();
    format!("this user, {}", user_name(uid))
}

/// Returns the file system of a directory, by proc_pid_mountinfo(5).
fn mount_of(directory: &Path) -> Option<String> {
    let directory = directory.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let (point, kind) = deepest_mount(&mounts, &directory)?;
    Some(format!("{kind} at {point}"))
}

/// Returns the mount point and type of the deepest mount above `directory`, and of several at the
/// same point the last one.
fn deepest_mount<'a>(mounts: &'a str, directory: &Path) -> Option<(String, &'a str)> {
    let mount = |line: &'a str| {
        let (fields, after) = line.split_once(" - ")?;
        Some((unescaped(fields.split(' ').nth(4)?), after.split(' ').next()?))
    };
    let on_the_way = mounts.lines().filter_map(mount).filter(|(at, _)| directory.starts_with(at));
    on_the_way.max_by_key(|(point, _)| Path::new(point).components().count())
}

/// Replaces each octal escape, such as `\040` for a space, by its character.
fn unescaped(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let escape = part.split_at_checked(3);
        match escape.and_then(|(digits, rest)| Some((u8::from_str_radix(digits, 8).ok()?, rest))) {
            Some((byte, rest)) => {
                text.push(char::from(byte));
                text.push_str(rest);
            }
            None => {
                text.push('\\');
                text.push_str(part);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_and_last_mount_counts() {
        let mounts = r"
22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /run rw,nosuid - tmpfs tmpfs rw,mode=755
24 23 0:22 / /run/user/1000 rw - tmpfs tmpfs rw
25 23 0:23 / /run rw - overlay overlay rw
26 22 0:24 / /my\040disk\134 rw - xfs /dev/sdb1 rw
";
        let at = |path| deepest_mount(mounts, Path::new(path)).unwrap();
        let mount = |point: &str, kind| (point.to_owned(), kind);
        assert_eq!(at("/home/x"), mount("/", "ext4"));
        assert_eq!(at("/run/app"), mount("/run", "overlay"));
        assert_eq!(at("/run/user/1000/x"), mount("/run/user/1000", "tmpfs"));
        assert_eq!(at("/running"), mount("/", "ext4"));
        assert_eq!(at("/my disk\\/x"), mount("/my disk\\", "xfs"));
    }
}

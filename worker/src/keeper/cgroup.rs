//! An attempt's own cgroup, where cgroup v2 is mounted and lets us make one: `cgroup.kill` ends everything in it at
//! once. Where it doesn't, the walk over `/proc` does the work alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// The directory in which this process may make cgroups of its own, if there is one.
pub fn parent() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    parent_of(&mounts, &own).filter(|dir| dir.join("cgroup.kill").exists() || dir.join("cgroup.procs").exists())
}

/// A cgroup's directory.
#[derive(Debug, Clone)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes the cgroup; it may be there already.
    pub fn make(dir: &Path) -> io::Result<Self> {
        match fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // A kernel before 5.14 has no way to end a cgroup at once, and then it is of no use here.
        if dir.join("cgroup.kill").exists() {
            Ok(Self(dir.to_owned()))
        } else {
            Self(dir.to_owned()).remove();
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// The cgroup in that directory, if it is there.
    pub fn existing(dir: &Path) -> Option<Self> {
        dir.join("cgroup.kill").exists().then(|| Self(dir.to_owned()))
    }

    /// Puts the calling process in.
    pub fn join(&self) -> io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), "0")
    }

    /// Kills everything in it and below it.
    pub fn kill(&self) {
        if let Err(error) = fs::write(self.0.join("cgroup.kill"), "1") {
            tracing::debug!(%error, "killing a cgroup");
        }
    }

    /// Whether a process may be in it or below it: where that can't be seen, one may be.
    pub fn is_populated(&self) -> bool {
        match fs::read_to_string(self.0.join("cgroup.events")) {
            Ok(events) => events.contains("populated 1"),
            // The cgroup is gone, or was removed while its file was read.
            Err(error) => error.kind() != io::ErrorKind::NotFound && error.raw_os_error() != Some(Errno::ENODEV as i32),
        }
    }

    /// Removes it and those that its processes made in it; one that is still in use stays.
    pub fn remove(&self) {
        remove(&self.0);
    }
}

fn remove(dir: &Path) {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&entry.path());
    }
    if let Err(error) = fs::remove_dir(dir) {
        tracing::debug!(%error, dir = %dir.display(), "removing a cgroup");
    }
}

/// Our own cgroup's directory, from the texts of `mountinfo` and `cgroup` in `/proc/self`.
pub fn parent_of(mounts: &str, own: &str) -> Option<PathBuf> {
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        // ID PARENT DEVICE ROOT MOUNTPOINT OPTIONS… - TYPE SOURCE OPTIONS
        let (mount, filesystem) = line.split_once(" - ")?;
        if filesystem.split(' ').next()? != "cgroup2" {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = if root == "/" { own } else { own.strip_prefix(root)? };
        Some(Path::new(&unescaped(point)).join(below.trim_start_matches('/')))
    })
}

/// A path of `mountinfo`, which writes blanks and backslashes in octal.
fn unescaped(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_is_found_wherever_version_two_is_mounted() {
        let hybrid = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let own = "8:pids:/\n0::/system.slice/windlass.service\n";
        let dir = parent_of(hybrid, own).unwrap();
        assert_eq!(dir, Path::new("/sys/fs/cgroup/unified/system.slice/windlass.service"));
        assert_eq!(parent_of(hybrid, "0::/\n").unwrap(), Path::new("/sys/fs/cgroup/unified/"));
    }

    #[test]
    fn the_part_that_a_container_sees_is_taken_off() {
        let mounts = "41 31 0:38 /docker/abc /sys/fs/c\\040group rw - cgroup2 cgroup2 rw\n";
        assert_eq!(parent_of(mounts, "0::/docker/abc/x\n").unwrap(), Path::new("/sys/fs/c group/x"));
        assert_eq!(parent_of(mounts, "0::/elsewhere\n"), None);
        assert_eq!(parent_of("", "0::/\n"), None);
    }
}

//! Disks that can be filled: small file systems in memory, which nobody but this process and its children sees, and which
//! are gone with them however they end.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{Gid, Uid};

/// How large a disk is: room enough for the work of some attempts, and full within a moment.
const DISK_BYTES: usize = 64 * 1024 * 1024;
const PIECE_BYTES: usize = 256 * 1024;
/// The least that somebody else can free.
const PAGE_BYTES: usize = 4096;
/// Which mounts the calling thread sees.
const NAMESPACE: &str = "/proc/thread-self/ns/mnt";

/// What mounts are ours alone, and why others couldn't be had.
static OWN: Mutex<(Vec<PathBuf>, Option<String>)> = Mutex::new((Vec::new(), None));

/// Gives the calling thread, and whatever it starts from now on, mounts that nobody else sees. To be called by `main`
/// before there is any other thread; root can do so in any thread, for that one and those that it starts. Where the platform
/// doesn't allow it, full disks are left out of the arena.
pub fn own_mounts() {
    if Disk::allowed().is_err() {
        let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
        match part_from_others() {
            Ok(namespace) => own.0.push(namespace),
            Err(error) => own.1 = Some(format!("no mounts of its own for this process: {error}")),
        }
    }
}

fn part_from_others() -> io::Result<PathBuf> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    let whoever = if uid.is_root() { 0 } else { libc::CLONE_NEWUSER };
    // SAFETY: it changes what this thread may see and do, and touches no memory.
    if unsafe { libc::unshare(libc::CLONE_NEWNS | whoever) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if !uid.is_root() {
        // Everybody stays who they are.
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    }
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    fs::read_link(NAMESPACE)
}

/// A disk of its own for one worker, or just a directory where there can be none.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    is_own: bool,
    /// What fills it.
    filler: Option<File>,
}

impl Disk {
    /// Whether this thread's disks are seen by nobody else.
    ///
    /// # Errors
    /// Why there are no own disks.
    pub fn allowed() -> Result<(), String> {
        let own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
        match fs::read_link(NAMESPACE) {
            Ok(seen) if own.0.contains(&seen) => Ok(()),
            _ => Err(own.1.clone().unwrap_or_else(|| "this thread shares its mounts with others".to_owned())),
        }
    }

    /// Makes one in an empty directory.
    pub fn make(dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("a directory");
        let is_own = Self::allowed().is_ok();
        if is_own {
            let size = format!("size={DISK_BYTES},mode=0755");
            mount(Some("disk"), dir, Some("tmpfs"), MsFlags::empty(), Some(&*size)).expect("a file system in memory");
        }
        Self { dir: dir.to_owned(), is_own, filler: None }
    }

    /// Where the worker's data is.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Takes all the room that is left; again and again, since others make some.
    pub fn fill(&mut self) {
        assert!(self.is_own, "somebody else's disk would be filled");
        let filler = self.dir.join("filler");
        let mut size = if self.filler.is_some() { PAGE_BYTES } else { PIECE_BYTES };
        let file = self.filler.get_or_insert_with(|| File::create(filler).expect("a file without a byte"));
        let piece = vec![0; size];
        while size > 0 {
            match file.write(&piece[..size]) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => size /= 2,
                Err(error) => panic!("filling a disk: {error}"),
            }
        }
    }

    pub fn is_full(&self) -> bool {
        self.filler.is_some()
    }

    /// Gives the room back.
    pub fn clear(&mut self) {
        if self.filler.take().is_some() {
            fs::remove_file(self.dir.join("filler")).expect("a file less");
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_own {
            // Who still uses it keeps it until then.
            let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
        }
    }
}

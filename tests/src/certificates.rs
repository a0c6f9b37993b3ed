//! Certificates made for one test: authorities, and what they vouch for, as PEM files that are gone with their authority.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::postgres;

/// An authority that nobody knows.
#[derive(Debug)]
pub struct Authority(TempDir);

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let authority = Self(tempfile::tempdir().expect("a temporary directory"));
        // Postgres reads its own here.
        fs::set_permissions(authority.0.path(), fs::Permissions::from_mode(0o755)).expect("a directory for all");
        let own = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"];
        authority.make("authority", &[], &own);
        authority
    }

    /// The file by which it is trusted.
    pub fn file(&self) -> PathBuf {
        self.path("authority.crt")
    }

    /// A certificate for `names`, like `IP:127.0.0.1` or `DNS:localhost`, with a key that Postgres takes; `file` is what its
    /// files are called, and replaces those of that name.
    pub fn vouch(&self, file: &str, names: &str) -> Pair {
        let (authority, key) = (self.file(), self.path("authority.key"));
        let by = ["-CA".as_ref(), authority.as_path(), "-CAkey".as_ref(), key.as_path()];
        self.make(file, &by, &["basicConstraints=critical,CA:FALSE", &format!("subjectAltName={names}")]);
        let pair = Pair { certificate: self.path(&format!("{file}.crt")), key: self.path(&format!("{file}.key")) };
        if let Some((user, group)) = postgres::account() {
            chown(&pair.key, Some(user.as_raw()), Some(group.as_raw())).expect("a key of the server's user");
        }
        pair
    }

    fn make(&self, file: &str, by: &[&Path], extensions: &[&str]) {
        // No two of them have a name in common: what was made by another is then from nobody known.
        let name = uuid::Uuid::new_v4();
        let names = format!("[req]\ndistinguished_name = names\nprompt = no\n[names]\nCN = {name}\n");
        fs::write(self.path("names"), names).expect("a file");
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-batch", "-nodes", "-days", "2", "-newkey", "ec", "-pkeyopt"]);
        command.arg("ec_paramgen_curve:prime256v1").arg("-config").arg(self.path("names")).args(by);
        command.arg("-out").arg(self.path(&format!("{file}.crt")));
        command.arg("-keyout").arg(self.path(&format!("{file}.key")));
        command.args(extensions.iter().flat_map(|extension| ["-addext", extension]));
        let made = command.output().expect("openssl is installed: tests/run does that");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

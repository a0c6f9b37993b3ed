//! A real HTTPS server on a port of its own that serves git repositories to everybody who trusts its certificate. It can
//! be told to refuse so many requests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::played::DEADLINE;
use crate::process::{self, Owned};
use crate::wait::eventually;

const PROGRAM: &str = include_str!("git_https.py");

/// A server of the test's own, gone when dropped.
pub struct GitHttps {
    dir: TempDir,
    port: u16,
    _server: Owned,
}

impl GitHttps {
    /// Serves the repositories below `root`.
    ///
    /// # Panics
    /// When openssl or python3 isn't there.
    pub fn start(root: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path();
        let (certificate, key) = (path.join("certificate"), path.join("key"));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        openssl.args(["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2", "-keyout"]);
        let made = openssl.arg(&key).arg("-out").arg(&certificate).stderr(Stdio::null()).status();
        assert!(made.expect("openssl is installed").success());
        let mut python = Command::new("python3");
        python.args(["-c", PROGRAM]).arg(root).arg(&certificate).arg(&key).arg(path).stdin(Stdio::null());
        let server = process::bound(python);
        let port = eventually(DEADLINE, "the HTTPS server listens", || fs::read_to_string(path.join("port")).ok());
        Self { port: port.parse().expect("a port"), dir, _server: server }
    }

    /// The URL of the repository `name` below its root.
    pub fn url(&self, name: &str) -> String {
        format!("https://127.0.0.1:{}/{name}", self.port)
    }

    /// The certificate that is to be trusted.
    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("certificate")
    }

    /// Answers the next requests with that status.
    pub fn refuse(&self, status: u16, times: u32) {
        fs::write(self.dir.path().join("refuse"), format!("{status} {times}")).expect("a file");
    }

    /// How many requests have come.
    pub fn requests(&self) -> usize {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default().lines().count()
    }
}

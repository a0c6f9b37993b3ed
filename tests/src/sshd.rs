//! A real sshd on a port of its own, behind which git serves repositories to the keys that a test has let in.
//!
//! A key opens git alone, and only the repositories below one directory. The server can be stopped and started again, get
//! another host key, and hold a fetch up in the middle of what it sends.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use nix::unistd::{User, geteuid};
use tempfile::TempDir;

use crate::played::DEADLINE;
use crate::process::{self, Owned};
use crate::wait::eventually;

/// What a key runs: git for reading, below the directory that its line names. With a file `held` beside it, no more comes of
/// what is large than its beginning, in so many reads, until the file is gone. With a file `babbles` it says what git can't
/// read, and holds the connection until the file is gone.
const GATE: &str = r#"#!/bin/sh
path=${SSH_ORIGINAL_COMMAND#*\'}
path=${path%\'*}
case "$SSH_ORIGINAL_COMMAND $path" in
  git-upload-pack\ *\ "$1"/*) ;;
  *) echo "ERROR: Repository not found." >&2; exit 1 ;;
esac
babbles=$(dirname "$0")/babbles
if [ -e "$babbles" ]; then
  echo "a motto that git can't read"
  while [ -e "$babbles" ]; do sleep 0.1; done
  exit 0
fi
held=$(dirname "$0")/held
over=$held.$$
if [ -e "$held" ]; then
  { git upload-pack "$path"; : > "$over"; } |
    { dd bs=8k count=32 2>/dev/null; while [ -e "$held" ] && [ ! -e "$over" ]; do sleep 0.02; done; cat; }
  rm -f "$over"
else
  exec git upload-pack "$path"
fi
"#;

/// What its log says of each connection.
pub const CONNECTION: &str = "Connection from 127.0.0.1";

/// A key pair that nobody has a file of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// In OpenSSH's own format.
    pub private: String,
    /// A line of OpenSSH, without a comment.
    pub public: String,
}

impl KeyPair {
    /// An ed25519 pair.
    pub fn new() -> Self {
        Self::made(&["-t", "ed25519"])
    }

    /// A pair as `ssh-keygen` makes it with these arguments.
    ///
    /// # Panics
    /// When it can't.
    pub fn made(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("key");
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-N", "", "-C", "", "-f"]).arg(&file).args(arguments);
        assert!(keygen.status().expect("ssh-keygen is installed").success(), "{arguments:?}");
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).expect("a key");
        Self { private: read("key"), public: read("key.pub").trim().to_owned() }
    }

    /// Texts and bytes of the private half, none of which may be found in a file: the lines of its body, and of an ed25519
    /// key the bytes that it is made from.
    pub fn traces(&self) -> Vec<Vec<u8>> {
        let body: Vec<&str> = self.private.lines().filter(|line| !line.starts_with("-----")).collect();
        // The first lines hold nothing but what the public half holds as well.
        let mut traces: Vec<Vec<u8>> = body[2..].iter().map(|line| line.as_bytes().to_vec()).collect();
        let engine = base64::engine::general_purpose::STANDARD;
        let decoded = engine.decode(body.concat()).expect("base64");
        let public = self.public.split(' ').nth(1).expect("a key");
        let public = engine.decode(public).expect("base64");
        if self.public.starts_with("ssh-ed25519") {
            let public = &public[public.len() - 32..];
            let at =
                decoded.windows(32).rposition(|bytes| bytes == public).expect("the public half within the private");
            traces.push(decoded[at - 32..at].to_vec());
        }
        traces
    }
}

impl Default for KeyPair {
    fn default() -> Self {
        Self::new()
    }
}

/// A server of the test's own, gone when dropped.
pub struct Sshd {
    dir: TempDir,
    port: u16,
    server: Option<Owned>,
}

impl Sshd {
    /// Starts one that lets nobody in yet, and lets git speak its second protocol.
    pub fn start() -> Self {
        Self::configured("AcceptEnv GIT_PROTOCOL\n")
    }

    /// Starts one behind which git speaks its first protocol alone: no commit is given by its id there, unless it is what
    /// a ref stands for.
    pub fn old() -> Self {
        Self::configured("")
    }

    fn configured(more: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        drop(listener);
        let path = dir.path();
        let gate = path.join("gate");
        fs::write(&gate, GATE).expect("the gate");
        fs::set_permissions(&gate, Permissions::from_mode(0o755)).expect("a program");
        fs::write(path.join("keys"), "").expect("the keys");
        let mut config = format!("Port {port}\nListenAddress 127.0.0.1\nPidFile none\nUsePAM no\nStrictModes no\n");
        config.push_str(
            "PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n",
        );
        config.push_str("MaxStartups 100\nLogLevel VERBOSE\n");
        for (option, file) in [("HostKey", "host"), ("AuthorizedKeysFile", "keys")] {
            writeln!(config, "{option} {}", path.join(file).display()).expect("a line");
        }
        fs::write(path.join("config"), config + more).expect("the configuration");
        let mut sshd = Self { dir, port, server: None };
        sshd.new_host_key();
        sshd.go_on();
        sshd
    }

    /// Lets that key read the repositories below `root`.
    pub fn allow(&self, key: &KeyPair, root: &Path) {
        let (file, gate) = (self.dir.path().join("keys"), self.dir.path().join("gate"));
        let mut keys = fs::read_to_string(&file).expect("the keys");
        let (gate, root) = (gate.display(), root.display());
        writeln!(keys, "restrict,command=\"{gate} {root}\" {}", key.public).expect("a line");
        fs::write(&file, keys).expect("the keys");
    }

    /// Lets nobody in any more.
    pub fn allow_nobody(&self) {
        fs::write(self.dir.path().join("keys"), "").expect("the keys");
    }

    /// The URL of the repository at `path`.
    ///
    /// # Panics
    /// When nobody knows what we are called.
    pub fn url(&self, path: &Path) -> String {
        let user = User::from_uid(geteuid()).expect("a list of users").expect("our own name");
        format!("ssh://{}@127.0.0.1:{}{}", user.name, self.port, path.display())
    }

    /// What pins its host key.
    pub fn known_hosts(&self) -> String {
        let public = fs::read_to_string(self.dir.path().join("host.pub")).expect("its key");
        format!("[127.0.0.1]:{} {}", self.port, public.trim())
    }

    /// Stops it. What it has begun goes on.
    pub fn stop(&mut self) {
        self.server = None;
    }

    /// Starts it again, and waits until it listens.
    pub fn go_on(&mut self) {
        if geteuid().is_root() {
            fs::create_dir_all("/run/sshd").expect("where sshd locks itself in");
        }
        let path = self.dir.path();
        let log = File::options().create(true).append(true).open(path.join("log")).expect("its log");
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(path.join("config"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let before = self.said(CONNECTION);
        self.server = Some(process::bound(command));
        eventually(DEADLINE, "sshd listens", || TcpStream::connect(("127.0.0.1", self.port)).ok().map(drop));
        // Whoever counts its connections begins after this one.
        eventually(DEADLINE, "sshd has said so", || (self.said(CONNECTION) > before).then_some(()));
    }

    /// Gives it another host key.
    pub fn change_host_key(&mut self) {
        self.stop();
        self.new_host_key();
        self.go_on();
    }

    fn new_host_key(&self) {
        let (file, key) = (self.dir.path().join("host"), KeyPair::new());
        fs::write(&file, key.private).expect("a host key");
        fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("a host key");
        fs::write(file.with_extension("pub"), key.public).expect("a host key");
    }

    /// Holds up what is fetched from now on in the middle, if it is larger than 400 KB, until [`Sshd::let_go`].
    pub fn hold_up(&self) {
        fs::write(self.dir.path().join("held"), "").expect("a file");
    }

    /// Lets what is held up go on.
    pub fn let_go(&self) {
        fs::remove_file(self.dir.path().join("held")).expect("a file");
    }

    /// Makes it answer what git can't read from now on, and hold each connection after that until it is gone itself.
    pub fn babble(&self) {
        fs::write(self.dir.path().join("babbles"), "").expect("a file");
    }

    /// How many times its log says `words`.
    pub fn said(&self, words: &str) -> usize {
        fs::read_to_string(self.dir.path().join("log")).expect("its log").matches(words).count()
    }
}

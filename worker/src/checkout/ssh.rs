//! How git's ssh is set up for one attempt: the one identity of its agent, the pinned host keys, and nothing else.
//!
//! The public half and the host keys are files of the attempt; the private half is the agent's alone.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::attempt::directories::private;

/// What doesn't change from one attempt to the next: no question asked, no other way in, nothing shared with another
/// connection, and no wait for a host that is silent.
const FIXED: &str = "\
BatchMode yes
IdentitiesOnly yes
PubkeyAuthentication yes
PreferredAuthentications publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
HostbasedAuthentication no
StrictHostKeyChecking yes
UpdateHostKeys no
VerifyHostKeyDNS no
CheckHostIP no
CanonicalizeHostname no
GlobalKnownHostsFile /dev/null
ControlMaster no
ControlPath none
ProxyCommand none
ProxyJump none
PermitLocalCommand no
ForwardAgent no
ForwardX11 no
ClearAllForwardings yes
AddKeysToAgent no
ConnectTimeout 15
ConnectionAttempts 1
ServerAliveInterval 15
ServerAliveCountMax 3
";

/// The file that ssh is given.
const CONFIG: &str = "config";

/// The deploy key that a checkout may use.
#[derive(Debug, Clone)]
pub struct DeployKey {
    /// What it is registered as.
    pub name: String,
    /// The socket of the agent that holds its private half.
    pub agent: PathBuf,
    /// Its public half, as a line of OpenSSH.
    pub public: String,
    /// The host keys that are trusted, as a `known_hosts` file.
    pub known_hosts: String,
}

/// Writes the files into `dir` that [`command`] uses. It blocks.
///
/// # Errors
/// When they can't be written, or a path can't stand in a configuration of ssh.
pub fn set_up(dir: &Path, key: &DeployKey) -> io::Result<()> {
    let (identity, known_hosts) = (dir.join("key.pub"), dir.join("known_hosts"));
    let mut text = FIXED.to_owned();
    for (option, path) in
        [("IdentityFile", &*identity), ("UserKnownHostsFile", &*known_hosts), ("IdentityAgent", &*key.agent)]
    {
        text.extend([option, " ", &argument(path)?, "\n"]);
    }
    private(dir)?;
    fs::write(&identity, format!("{}\n", key.public))?;
    fs::write(&known_hosts, format!("{}\n", key.known_hosts))?;
    fs::write(dir.join(CONFIG), text)
}

/// What git is to run for ssh, as `GIT_SSH_COMMAND` says it: a line for a shell. `dir` is set up.
pub fn command(dir: &Path) -> OsString {
    let quoted = dir.join(CONFIG).to_string_lossy().replace('\'', r"'\''");
    format!("ssh -F '{quoted}'").into()
}

/// A path as an argument of ssh's configuration, where `%` begins something that ssh puts in.
fn argument(path: &Path) -> io::Result<String> {
    // Older versions can't quote these, and `${` always names a variable.
    let plain =
        |text: &&str| !text.contains(['"', '\\']) && !text.contains("${") && !text.chars().any(char::is_control);
    let refused = || io::Error::other(format!("ssh can't be told of {}: its path has odd characters", path.display()));
    let text = path.to_str().filter(plain).ok_or_else(refused)?;
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted_for_ssh_or_refused() {
        assert_eq!(argument(Path::new("/a b/100%/$c")).unwrap(), "\"/a b/100%%/$c\"");
        for odd in ["/a\"b", "/a\\b", "/a${HOME}b", "/a\nb"] {
            assert!(argument(Path::new(odd)).unwrap_err().to_string().contains("odd characters"), "{odd}");
        }
    }

    #[test]
    fn git_hands_the_whole_path_to_ssh() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("it's $(a) `b` %h");
        std::fs::create_dir(&odd).unwrap();
        let agent = odd.join("agent");
        let [name, public, known_hosts] = ["app", "ssh-ed25519 AAAA", "h ssh-ed25519 AAAA"].map(str::to_owned);
        let key = DeployKey { name, agent: agent.clone(), public, known_hosts };
        set_up(&odd, &key).unwrap();
        let command = command(&odd);
        let shown = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!("{} -G -p 2222 git@host.example", command.to_str().unwrap()))
            .output()
            .unwrap();
        assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
        let shown = String::from_utf8(shown.stdout).unwrap();
        let says = |line: String| assert!(shown.lines().any(|shown| shown == line), "{line} is not in {shown}");
        says(format!("userknownhostsfile {}", odd.join("known_hosts").display()));
        says(format!("identityagent {}", agent.display()));
        for line in ["stricthostkeychecking true", "batchmode yes", "identitiesonly yes", "passwordauthentication no"] {
            says(line.to_owned());
        }
        assert_eq!(shown.lines().filter(|line| line.starts_with("identityfile ")).count(), 1);
    }
}

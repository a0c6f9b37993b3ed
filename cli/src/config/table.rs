//! Every setting, as data: what it is called, what it may be, who reads it, and what it is when nobody says. The file's keys,
//! `windlass config check` and the README's table come from here.

use clap::ValueEnum;
use serde::Serialize;

use super::value;

/// The variable that names the file. It is no key of it.
pub const CONFIG: &str = "WINDLASS_CONFIG";
/// What every variable of ours begins with.
pub const PREFIX: &str = "WINDLASS_";

/// A setting.
pub struct Setting {
    /// Its variable. Its key and its flag are the rest of it in lower case.
    pub name: &'static str,
    pub kind: Kind,
    pub roles: &'static [Role],
    /// What it is, in users' words.
    pub is: &'static str,
    /// What it is when nobody says; empty where it is nothing then.
    pub default: &'static str,
    /// What is wrong with a value, without any of it where it is secret.
    pub check: fn(&str) -> Result<(), String>,
}

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Number,
    Switch,
    /// Texts with commas between them.
    List,
    /// URLs with commas between them, which may hold passwords.
    Servers,
    /// A path, of the file an absolute one.
    Path,
    /// Comes by variable, or by a file that the setting's name with `_FILE` names; it is never shown.
    Secret,
}

/// Who reads a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Coordinator,
    Worker,
    Dev,
    /// Every command that speaks to the API.
    Client,
    Run,
    Migrate,
}

use Role::{Client, Coordinator, Dev, Migrate, Run, Worker};

pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "WINDLASS_DATABASE_URL",
        kind: Kind::Secret,
        roles: &[Coordinator, Migrate, Dev],
        is: "`postgres://…`; for `dev` `sqlite://PATH`",
        default: "`dev`: `DATA_DIR/windlass.db`",
        check: value::database,
    },
    Setting {
        name: "WINDLASS_NATS_URL",
        kind: Kind::Servers,
        roles: &[Coordinator, Worker],
        is: "one or more URLs with commas between them; in the file without users and passwords",
        default: "`nats://127.0.0.1:4222`",
        check: value::servers,
    },
    Setting {
        name: "WINDLASS_LISTEN",
        kind: Kind::Text,
        roles: &[Coordinator, Dev],
        is: "where the API listens; port 0 picks a free one",
        default: "`127.0.0.1:7070`",
        check: value::listen,
    },
    Setting {
        name: "WINDLASS_ADVERTISE_URL",
        kind: Kind::Text,
        roles: &[Coordinator],
        is: "where other coordinators reach it",
        default: "`http://` (or `https://`) and where it listens; the host's name in place of `0.0.0.0`",
        check: value::advertised,
    },
    Setting {
        name: "WINDLASS_TLS_CERT_FILE",
        kind: Kind::Path,
        roles: &[Coordinator],
        is: "a PEM file with the API's certificate, and those between it and its authority; with it the API speaks HTTPS alone",
        default: "",
        check: value::path,
    },
    Setting {
        name: "WINDLASS_TLS_KEY_FILE",
        kind: Kind::Path,
        roles: &[Coordinator],
        is: "a PEM file with the certificate's private key",
        default: "",
        check: value::path,
    },
    Setting {
        name: "WINDLASS_CA_FILE",
        kind: Kind::Path,
        roles: &[Coordinator, Worker, Client],
        is: "a PEM file with the authorities whose certificates are trusted, of the API and of NATS",
        default: "the public ones",
        check: value::path,
    },
    Setting {
        name: "WINDLASS_MASTER_KEYS",
        kind: Kind::Secret,
        roles: &[Coordinator],
        is: "`id:base64` of 32 bytes, comma-separated; the first encrypts, the others still open; the same at each replica",
        default: "",
        check: value::master_keys,
    },
    Setting {
        name: "WINDLASS_BOOTSTRAP_TOKEN",
        kind: Kind::Secret,
        roles: &[Coordinator],
        is: "becomes an administrator's token, called `admin`; the same again is no error",
        default: "",
        check: value::token,
    },
    Setting {
        name: "WINDLASS_NO_MIGRATE",
        kind: Kind::Switch,
        roles: &[Coordinator],
        is: "`true` leaves the tables as they are; `windlass migrate` brings them up to date",
        default: "`false`",
        check: value::switch,
    },
    Setting {
        name: "WINDLASS_RETENTION",
        kind: Kind::Text,
        roles: &[Coordinator, Dev],
        is: "how long a job is kept after its end, with its timeline and its log; `1d` or more",
        default: "`30d`",
        check: value::retention,
    },
    Setting {
        name: "WINDLASS_DATA_DIR",
        kind: Kind::Path,
        roles: &[Worker, Dev, Run, Client],
        is: "identity, spool and work trees; all that `dev` keeps",
        default: "`$XDG_STATE_HOME/windlass`; `run`: a directory that is gone afterwards",
        check: value::path,
    },
    Setting {
        name: "WINDLASS_JOIN_TOKEN",
        kind: Kind::Secret,
        roles: &[Worker],
        is: "what it enrols with, ignored once it has an identity",
        default: "",
        check: value::token,
    },
    Setting {
        name: "WINDLASS_NAME",
        kind: Kind::Text,
        roles: &[Worker],
        is: "what people call it",
        default: "the host's name",
        check: value::any,
    },
    Setting {
        name: "WINDLASS_SLOTS",
        kind: Kind::Number,
        roles: &[Worker, Dev],
        is: "how many jobs run at once",
        default: "the CPUs",
        check: value::slots,
    },
    Setting {
        name: "WINDLASS_TAG",
        kind: Kind::List,
        roles: &[Worker, Dev],
        is: "its tags, comma-separated; `--tag` is repeatable, and in the file it may be a list",
        default: "none",
        check: value::tags,
    },
    Setting {
        name: "WINDLASS_KEY_RETRY",
        kind: Kind::Text,
        roles: &[Worker, Dev],
        is: "how a deploy key that isn't registered is looked for, unless the job says so: any of the parts of the default; \
             `backoff` is `constant`, `exponential` or `fibonacci`",
        default: "`tries=5,backoff=exponential,first=1s,max=30s,deadline=2m`",
        check: value::key_retry,
    },
    Setting {
        name: "WINDLASS_URL",
        kind: Kind::Text,
        roles: &[Client],
        is: "where the API is",
        default: "where `dev` listens",
        check: value::url,
    },
    Setting {
        name: "WINDLASS_TOKEN",
        kind: Kind::Secret,
        roles: &[Client],
        is: "what it is opened with",
        default: "on `dev`'s own machine: the token in its directory",
        check: value::token,
    },
    Setting {
        name: "WINDLASS_LOG",
        kind: Kind::Text,
        roles: &[Coordinator, Worker, Dev, Run, Migrate],
        is: "which log lines are shown, like `info` or `coordinator=debug`",
        default: "`info`; `run`: `error`",
        check: value::filter,
    },
];

impl Setting {
    /// What it is called in the file; for a secret, where the file with it is named there.
    pub fn key(&self) -> String {
        let key = self.name.strip_prefix(PREFIX).unwrap_or(self.name).to_lowercase();
        if self.is_secret() { format!("{key}_file") } else { key }
    }

    /// The variable that the key in the file stands for.
    pub fn variable(&self) -> String {
        if self.is_secret() { format!("{}_FILE", self.name) } else { self.name.to_owned() }
    }

    pub fn is_secret(&self) -> bool {
        self.kind == Kind::Secret
    }
}

/// The setting whose variable is called that.
pub fn named(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The secret that may come from the file which this variable names.
pub fn secret_behind(variable: &str) -> Option<&'static Setting> {
    named(variable.strip_suffix("_FILE")?).filter(|setting| setting.is_secret())
}

/// The name among `names` that was most likely meant.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let far = (name.len() / 3).max(2);
    let measured = names.map(|known| (distance(name, known), known)).filter(|(distance, _)| *distance <= far);
    measured.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

/// How many characters have to be put in, left out or exchanged to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (n, x) in a.chars().enumerate() {
        let (mut left, mut next) = (n + 1, vec![n + 1]);
        for (y, pair) in b.chars().zip(row.windows(2)) {
            let [above_left, above] = *pair else { continue };
            left = (above_left + usize::from(x != y)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Kind, Role, SETTINGS, Setting, distance, nearest};
    use crate::args::Cli;

    const README: &str = include_str!("../../../README.md");

    fn name_of(role: Role) -> String {
        format!("{role:?}").to_lowercase()
    }

    fn row(setting: &Setting) -> String {
        let roles: Vec<String> = setting.roles.iter().map(|role| name_of(*role)).collect();
        let file = if setting.is_secret() { ", `…_FILE`" } else { "" };
        let default = if setting.default.is_empty() { String::new() } else { format!(" [{}]", setting.default) };
        let no_flag = if setting.is_secret() { "; no flag" } else { "" };
        format!("| `{}`{file} | {} | {}{default}{no_flag} |", setting.name, roles.join(", "), setting.is)
    }

    #[test]
    fn the_readme_lists_the_settings_as_they_are() {
        let wanted: Vec<String> = SETTINGS.iter().map(row).collect();
        let found: Vec<&str> = README.lines().filter(|line| line.starts_with("| `WINDLASS_")).collect();
        assert_eq!(found, wanted, "the README's table should be:\n{}", wanted.join("\n"));
    }

    #[test]
    fn each_setting_but_secrets_is_a_flag_of_whoever_reads_it_and_its_help_names_the_variable() {
        let root = Cli::command();
        for (setting, role) in
            SETTINGS.iter().flat_map(|setting| setting.roles.iter().map(move |role| (setting, *role)))
        {
            // It has no flags of its own.
            if role == Role::Migrate {
                continue;
            }
            let commands: &[&str] = match role {
                Role::Client => &["job", "workers", "key", "token"],
                _ => &[&*name_of(role)],
            };
            for name in commands {
                let command = root.find_subcommand(name).unwrap();
                let long = setting.key().replace('_', "-");
                let flag = command.get_arguments().find(|argument| argument.get_long() == Some(&long));
                assert_eq!(flag.is_none(), setting.is_secret(), "{name} --{long}");
                let help = flag.and_then(|flag| flag.get_help()).map(ToString::to_string).unwrap_or_default();
                assert!(
                    setting.is_secret() || help.contains(&format!("[env: {}", setting.name)),
                    "{name} --{long}: {help}"
                );
            }
        }
    }

    #[test]
    fn a_default_that_is_a_value_is_one() {
        for setting in SETTINGS.iter().filter(|setting| setting.kind != Kind::Secret && setting.kind != Kind::Path) {
            if let Some(value) = setting.default.strip_prefix('`').and_then(|rest| rest.split('`').next())
                && value != "http://"
            {
                assert_eq!((setting.check)(value), Ok(()), "{}", setting.name);
            }
        }
    }

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        let names = ["listen", "nats_url", "name", "slots"];
        let found = |name: &str| nearest(name, names.into_iter());
        assert_eq!(
            (found("slot"), found("lisen"), found("nat_url")),
            (Some("slots"), Some("listen"), Some("nats_url"))
        );
        assert_eq!(found("zzzzzz"), None);
        assert_eq!((distance("kitten", "sitting"), distance("", "ab"), distance("ab", "")), (3, 2, 2));
    }
}

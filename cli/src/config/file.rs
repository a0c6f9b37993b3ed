//! The configuration file: TOML with one key for each setting and no sections. Everything that is wrong in it is found at
//! once, each with its line, and nothing that may be secret is repeated.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::mistake::{Mistake, Place};
use super::table::{self, Kind, PREFIX, SETTINGS, Setting};

/// The most bytes of the file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What a file says.
#[derive(Debug, Default)]
pub struct ConfigFile {
    pub path: PathBuf,
    entries: Vec<Entry>,
}

/// One of its settings.
#[derive(Debug)]
pub struct Entry {
    /// The variable that it stands for.
    variable: String,
    pub key: String,
    /// As the variable would have it.
    pub text: String,
    pub line: usize,
}

impl ConfigFile {
    /// What the file at `path` says, and all that is wrong with it.
    pub fn read(path: &Path) -> (Self, Vec<Mistake>) {
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
        let refused = |why: String| (Self::default(), vec![Mistake::of_file(path, None, "", why)]);
        match read {
            Err(error) => refused(format!("{error}: name the configuration with --config or {}", table::CONFIG)),
            Ok(bytes) if bytes as u64 > FILE_BYTES_MAX => refused(format!("has more than {FILE_BYTES_MAX} bytes")),
            Ok(_) => Self::parse(path, &text),
        }
    }

    /// The entry that stands for that variable.
    pub fn entry(&self, variable: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.variable == variable)
    }

    fn parse(path: &Path, text: &str) -> (Self, Vec<Mistake>) {
        let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        let (table, errors) = DeTable::parse_recoverable(text);
        let told = errors.iter().map(|error| {
            let at = error.span().map_or(1, |span| line(span.start));
            Mistake::of_file(path, Some(at), "", format!("is not TOML: {}", error.message()))
        });
        let mut mistakes: Vec<Mistake> = told.collect();
        let broken: Vec<Place> = mistakes.iter().map(|mistake| mistake.place.clone()).collect();
        let mut entries = Vec::new();
        for (key, value) in table.get_ref() {
            let at = line(key.span().start);
            match setting(key.get_ref(), value.get_ref()) {
                Ok((setting, text)) => {
                    let (variable, key) = (setting.variable(), setting.key());
                    entries.push(Entry { variable, key, text, line: at });
                }
                Err(why) => {
                    let mistake = Mistake::of_file(path, Some(at), key.get_ref(), why);
                    // What is left of a line that is no TOML says nothing new.
                    if !broken.contains(&mistake.place) {
                        mistakes.push(mistake);
                    }
                }
            }
        }
        mistakes.sort_by_key(|mistake| mistake.place.line());
        (Self { path: path.to_owned(), entries }, mistakes)
    }
}

/// The setting that a key stands for, and its value as a variable would have it.
fn setting(key: &str, value: &DeValue) -> Result<(&'static Setting, String), String> {
    let Some(setting) = SETTINGS.iter().find(|setting| setting.key() == key) else { return Err(unknown(key, value)) };
    let text = text_of(setting.kind, value)?;
    match setting.kind {
        _ if text.is_empty() && !matches!(value, DeValue::Array(_)) => {
            return Err("is empty: leave the key out".to_owned());
        }
        Kind::Path | Kind::Secret if !Path::new(&text).is_absolute() => {
            return Err(format!("{text} is not an absolute path: the file counts wherever a command is started"));
        }
        Kind::Servers if text.contains('@') => {
            let remedy = format!("set {} in the environment instead", setting.name);
            return Err(format!("must hold no user and no password, which don't belong in this file: {remedy}"));
        }
        // Its value isn't here: it is checked where it is read.
        Kind::Secret => {}
        _ => (setting.check)(&text)?,
    }
    Ok((setting, text))
}

/// What is wrong with a key that is none.
fn unknown(key: &str, value: &DeValue) -> String {
    let plain = key.to_lowercase().replace('-', "_");
    let plain = plain.strip_prefix(&PREFIX.to_lowercase()).unwrap_or(&plain);
    let secret = SETTINGS.iter().find(|setting| setting.is_secret() && setting.key() == format!("{plain}_file"));
    if let Some(secret) = secret {
        return format!(
            "is a secret, and those don't belong in this file: put it into a file that only its user can read, and name that \
             with {} = \"/…\"; or set {} in the environment",
            secret.key(),
            secret.name
        );
    }
    if matches!(value, DeValue::Table(_)) {
        return "is a section, and there are none: every key stands alone, before any [section]".to_owned();
    }
    let keys: Vec<String> = SETTINGS.iter().map(Setting::key).collect();
    match table::nearest(plain, keys.iter().map(String::as_str)) {
        Some(near) => format!("is not a setting: {near} is the nearest one"),
        None => "is not a setting: `windlass config check --config /dev/null` lists them".to_owned(),
    }
}

/// A value as the variable of a setting of that kind has it.
fn text_of(kind: Kind, value: &DeValue) -> Result<String, String> {
    let wanted = match kind {
        Kind::Text => "text in quotes",
        Kind::Path | Kind::Secret => "a path in quotes",
        Kind::Number => "a whole number without quotes",
        Kind::Switch => "true or false without quotes",
        Kind::List => "a list like [\"a\", \"b\"]",
        Kind::Servers => "a URL in quotes, or a list of them",
    };
    let refused = || format!("must be {wanted}");
    let item = |value: &DeValue| match value {
        DeValue::String(text) if !text.is_empty() && !text.contains(',') => Ok(text.to_string()),
        _ => Err(refused()),
    };
    match (kind, value) {
        (Kind::Text | Kind::Path | Kind::Secret | Kind::List | Kind::Servers, DeValue::String(text)) => {
            Ok(text.to_string())
        }
        (Kind::Number, DeValue::Integer(number)) => {
            i64::from_str_radix(number.as_str(), number.radix()).map(|number| number.to_string()).map_err(|_| refused())
        }
        (Kind::Switch, DeValue::Boolean(on)) => Ok(on.to_string()),
        (Kind::List | Kind::Servers, DeValue::Array(items)) => {
            let items: Result<Vec<String>, String> = items.iter().map(|value| item(value.get_ref())).collect();
            Ok(items?.join(","))
        }
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::ConfigFile;

    fn parsed(text: &str) -> (ConfigFile, Vec<String>) {
        let (file, mistakes) = ConfigFile::parse(Path::new("/w.toml"), text);
        (file, mistakes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn each_kind_of_value_is_read_as_its_variable_has_it() {
        let (file, mistakes) = parsed(
            "# ours\nlisten = '0.0.0.0:80'\nslots = 1_0\nno_migrate = true\ntag = ['b', 'a']\n\
             nats_url = [\n  'nats://a:1', 'nats://b:2']\ntoken_file = '/run/token'\ndata_dir = \"/data\"\n",
        );
        assert_eq!(mistakes, [""; 0]);
        let found = |name: &str| file.entry(name).map(|entry| (entry.text.as_str(), entry.line));
        assert_eq!(found("WINDLASS_LISTEN"), Some(("0.0.0.0:80", 2)));
        assert_eq!(found("WINDLASS_SLOTS"), Some(("10", 3)));
        assert_eq!(found("WINDLASS_NO_MIGRATE"), Some(("true", 4)));
        assert_eq!(found("WINDLASS_TAG"), Some(("b,a", 5)));
        assert_eq!(found("WINDLASS_NATS_URL"), Some(("nats://a:1,nats://b:2", 6)));
        assert_eq!(found("WINDLASS_TOKEN_FILE"), Some(("/run/token", 8)));
        assert_eq!((found("WINDLASS_TOKEN"), found("WINDLASS_NAME")), (None, None));
        assert_eq!(parsed("tag = []\n").1, [""; 0]);
    }

    #[test]
    fn every_mistake_is_named_at_once_with_its_line() {
        let text = "lisen = 'x'\nslots = '4'\nslots2 = 4\nlisten = 'here'\nlog = 'a=b=c'\ntag = ['a b']\n\
                    key_retry = 'tries=0'\ndata_dir = 'data'\nname = ''\nno_migrate = 1\nadvertise_url = 'host'\n\
                    [worker]\nslots = 3\n";
        let (_, mistakes) = parsed(text);
        let wanted = [
            "/w.toml:1: lisen: is not a setting: listen is the nearest one",
            "/w.toml:2: slots: must be a whole number without quotes",
            "/w.toml:3: slots2: is not a setting: slots is the nearest one",
            "/w.toml:4: listen: here is not",
            "/w.toml:5: log: ",
            "/w.toml:6: tag: a b",
            "/w.toml:7: key_retry: tries=0 is not",
            "/w.toml:8: data_dir: data is not an absolute path",
            "/w.toml:9: name: is empty",
            "/w.toml:10: no_migrate: must be true or false",
            "/w.toml:11: advertise_url: host is not a URL",
            "/w.toml:12: worker: is a section",
        ];
        assert_eq!(mistakes.len(), wanted.len(), "{mistakes:#?}");
        for (mistake, wanted) in mistakes.iter().zip(wanted) {
            assert!(mistake.starts_with(wanted), "{mistake} is not {wanted}…");
        }
    }

    #[test]
    fn what_is_no_toml_is_told_beside_what_is_wrong_otherwise() {
        let (file, mistakes) = parsed("name = 'a\nslots = 0\nname = 'b'\nlisten = '[::1]:0'\n");
        assert!(mistakes.iter().any(|mistake| mistake.starts_with("/w.toml:1: is not TOML: ")), "{mistakes:?}");
        assert!(mistakes.iter().any(|mistake| mistake.starts_with("/w.toml:2: slots: 0 is not")), "{mistakes:?}");
        assert!(file.entry("WINDLASS_LISTEN").is_some());
    }

    #[test]
    fn a_secret_is_refused_with_the_remedy_and_never_repeated() {
        for key in
            ["token", "join_token", "master_keys", "bootstrap_token", "database_url", "WINDLASS_TOKEN", "join-token"]
        {
            let (_, mistakes) = parsed(&format!("\n{key} = 'hunter2'\n"));
            let [mistake] = mistakes.as_slice() else { panic!("{key}: {mistakes:?}") };
            assert!(mistake.starts_with(&format!("/w.toml:2: {key}: is a secret")), "{mistake}");
            assert!(mistake.contains("_file = ") && mistake.contains(" or set WINDLASS_"), "{mistake}");
            assert!(!mistake.contains("hunter2"), "{mistake}");
        }
        for text in
            ["nats_url = 'nats://me:hunter2@host'", "token = hunter2", "token = 'hunter2", "url = 'http://a:hunter2@b'"]
        {
            let (_, mistakes) = parsed(text);
            assert!(!mistakes.is_empty() && !mistakes.concat().contains("hunter2"), "{mistakes:?}");
        }
    }
}

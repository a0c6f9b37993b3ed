//! `config check` on files and environments of a test's own.

use std::fs;

use super::*;

const KEYS: &str = "first:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn examined(role: Option<Role>, file: &str, variables: &[(&str, &str)]) -> (Report, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.toml");
    fs::write(&path, file.replace("DIR", dir.path().to_str().unwrap())).unwrap();
    fs::write(dir.path().join("secret"), "hunter2 hunter2\n").unwrap();
    let lookup = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
    let names = variables.iter().map(|(name, _)| (*name).to_owned());
    let report = examine(role, Some(&path), &lookup, names);
    let text = text(&report).replace(path.to_str().unwrap(), "w.toml");
    assert!(!text.contains("hunter2") && !document(&report).to_string().contains("hunter2"), "{text}");
    (report, text)
}

#[test]
fn every_mistake_of_file_and_environment_is_told() {
    let variables = [
        ("WINDLASS_SLOTS", "many"),
        ("WINDLASS_NO_MIGRATE", "perhaps"),
        ("WINDLASS_TOKEN", "hunter2 b"),
        ("WINDLASS_LISTEN", "7070"),
        ("WINDLASS_LOGG", "info"),
    ];
    let (report, text) = examined(None, "lisen = 'x'\n\nslots = 0\njoin_token_file = 'DIR/secret'\n", &variables);
    for words in [
        "w.toml:1: lisen: is not a setting: listen",
        "w.toml:3: slots: 0 is not a number from 1 to",
        "w.toml:4: join_token_file: holds no token",
        "environment: WINDLASS_SLOTS: many is not a number",
        "environment: WINDLASS_NO_MIGRATE: perhaps is neither",
        "environment: WINDLASS_TOKEN: holds no token",
        "environment: WINDLASS_LISTEN: 7070 is not an address with a port",
    ] {
        assert!(text.contains(words), "{words} is missing:\n{text}");
    }
    assert_eq!((text.lines().count(), report.warnings.len()), (7, 1), "{text}");
    assert!(report.warnings.concat().contains("WINDLASS_LOG is the nearest"));
    assert_eq!(document(&report)["mistakes"].as_array().unwrap().len(), 7);
}

#[test]
fn a_role_is_told_all_that_it_lacks() {
    let (_, text) = examined(Some(Role::Coordinator), "", &[("WINDLASS_BOOTSTRAP_TOKEN", "hunter2 b")]);
    for name in ["WINDLASS_DATABASE_URL: is not set", "WINDLASS_MASTER_KEYS: is not set", "WINDLASS_BOOTSTRAP_TOKEN: "]
    {
        assert!(text.contains(&format!("environment: {name}")), "{text}");
    }
    assert_eq!(text.lines().count(), 3, "{text}");
    let (_, text) = examined(Some(Role::Dev), "", &[("WINDLASS_DATABASE_URL", "postgres://a:hunter2@b/c")]);
    assert!(text.contains("environment: WINDLASS_DATABASE_URL: postgres:// is for `windlass coordinator`"), "{text}");
    let (_, text) = examined(Some(Role::Worker), "data_dir = 'DIR'\n", &[]);
    assert!(
        text.contains("environment: WINDLASS_JOIN_TOKEN: is not set") && text.contains("windlass token join"),
        "{text}"
    );
    // What others read is no concern of its own.
    assert!(examined(Some(Role::Client), "", &[("WINDLASS_SLOTS", "many")]).0.mistakes.is_empty());
}

#[test]
fn without_a_mistake_each_setting_is_shown_with_where_it_comes_from() {
    let variables = [
        ("WINDLASS_DATABASE_URL", "postgres://a:hunter2@b/c"),
        ("WINDLASS_MASTER_KEYS", KEYS),
        ("WINDLASS_NATS_URL", "nats://me:hunter2@n:4222"),
    ];
    let file = "listen = '0.0.0.0:80'\nmaster_keys_file = 'DIR/secret'\n";
    let (report, text) = examined(Some(Role::Coordinator), file, &variables);
    assert!(report.mistakes.is_empty(), "{text}");
    let line =
        |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(line("listen"), ["listen", "0.0.0.0:80", "w.toml:1"]);
    assert_eq!(line("database_url"), ["database_url", "set", "environment,", "WINDLASS_DATABASE_URL"]);
    assert_eq!(line("master_keys"), ["master_keys", "set", "environment,", "WINDLASS_MASTER_KEYS"]);
    assert_eq!(line("nats_url"), ["nats_url", "nats://n:4222", "environment,", "WINDLASS_NATS_URL"]);
    assert_eq!(line("no_migrate"), ["no_migrate", "false", "default"]);
    assert_eq!(document(&report)["settings"].as_array().unwrap().len(), text.lines().count() - 1);
}

#[test]
fn what_does_not_go_together_is_told_where_it_was_set() {
    let variables = [("WINDLASS_DATABASE_URL", "postgres://a@b/c"), ("WINDLASS_MASTER_KEYS", KEYS)];
    let file = "log = 'info'\ntls_key_file = '/key'\nca_file = '/nonexistent'\n";
    let (_, text) = examined(Some(Role::Coordinator), file, &variables);
    for words in
        ["w.toml:2: tls_key_file: is set without WINDLASS_TLS_CERT_FILE", "w.toml:3: ca_file: /nonexistent: No such"]
    {
        assert!(text.contains(words), "{words} is missing:\n{text}");
    }
    assert_eq!(text.lines().count(), 2, "{text}");
}

//! Where settings come from, tried with files of a test's own.

use std::fs;
use std::path::Path;

use shared::settings::Settings;
use tempfile::TempDir;

use super::{Sources, warnings};

fn environment(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> + use<> {
    let variables: Vec<_> = variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    move |name| variables.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone())
}

fn written(text: &str) -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.toml");
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn a_variable_is_above_the_file_and_an_empty_one_counts_for_nothing() {
    let (_dir, path) = written("listen = '10.0.0.1:1'\nslots = 3\nname = 'file'\n");
    let variables = environment(&[("WINDLASS_NAME", "variable"), ("WINDLASS_SLOTS", ""), ("WINDLASS_CONFIG", &path)]);
    let (sources, mistakes) = Sources::load(None, &variables);
    assert!(mistakes.is_empty());
    let found = |name: &str| sources.text(name);
    assert_eq!(found("WINDLASS_NAME").as_deref(), Some("variable"));
    assert_eq!(found("WINDLASS_SLOTS").as_deref(), Some("3"));
    assert_eq!(found("WINDLASS_LISTEN").as_deref(), Some("10.0.0.1:1"));
    assert_eq!(found("WINDLASS_TAG"), None);
}

#[test]
fn the_file_is_the_one_named_or_else_the_users_own() {
    let (home, named) = written("name = 'named'\n");
    let own = home.path().join(".config/windlass");
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("windlass.toml"), "name = 'own'\n").unwrap();
    let xdg = home.path().join("xdg/windlass");
    fs::create_dir_all(&xdg).unwrap();
    fs::write(xdg.join("windlass.toml"), "name = 'xdg'\n").unwrap();
    let at = home.path().to_str().unwrap();
    let xdg = format!("{at}/xdg");
    let name = |flag: Option<&str>, variables: &[(&str, &str)]| {
        let variables = environment(variables);
        let (sources, mistakes) = Sources::load(flag.map(Path::new), &variables);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        sources.text("WINDLASS_NAME").unwrap()
    };
    assert_eq!(name(None, &[("HOME", at)]), "own");
    assert_eq!(name(None, &[("HOME", at), ("XDG_CONFIG_HOME", &xdg)]), "xdg");
    assert_eq!(name(None, &[("HOME", at), ("WINDLASS_CONFIG", &named)]), "named");
    assert_eq!(name(Some(&named), &[("HOME", at), ("WINDLASS_CONFIG", "/nonexistent")]), "named");
}

#[test]
fn a_named_file_that_is_not_there_is_a_mistake_and_a_default_one_is_not() {
    let variables = environment(&[("HOME", "/nonexistent"), ("WINDLASS_CONFIG", "/nonexistent/w.toml")]);
    let (_, mistakes) = Sources::load(None, &variables);
    let told = mistakes.iter().map(ToString::to_string).collect::<String>();
    assert!(told.starts_with("/nonexistent/w.toml: No such file") && told.contains("--config"), "{told}");
}

#[test]
fn a_secret_of_the_environment_is_above_the_file_that_the_configuration_names() {
    let (dir, path) = written("token_file = '/nonexistent/token'\n");
    let secret = |variables: &[(&str, &str)]| {
        let variables = environment(variables);
        let (sources, mistakes) = Sources::load(Some(Path::new(&path)), &variables);
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let lookup = |name: &str| sources.text(name);
        let found = Settings::new(&lookup).secret("WINDLASS_TOKEN");
        found.map_err(|fault| sources.traced(&fault.to_string()))
    };
    assert_eq!(secret(&[("WINDLASS_TOKEN", "told")]), Ok(Some("told".to_owned())));
    let told = secret(&[]).unwrap_err();
    assert!(told.starts_with(&format!("{path}:1: token_file: /nonexistent/token: No such file")), "{told}");
    let other = dir.path().join("token");
    fs::write(&other, "other\n").unwrap();
    assert_eq!(secret(&[("WINDLASS_TOKEN_FILE", other.to_str().unwrap())]), Ok(Some("other".to_owned())));
}

#[test]
fn variables_that_are_no_settings_are_told_with_the_nearest_that_is() {
    let names =
        ["WINDLASS_SLOT", "WINDLASS_TOKEN_FILE", "WINDLASS_JOB_ID", "PATH", "WINDLASS_LISTEN", "WINDLASS_CONFIG"];
    let of_kubernetes =
        ["WINDLASS_SERVICE_HOST", "WINDLASS_PORT", "WINDLASS_PORT_7070_TCP", "WINDLASS_API_SERVICE_PORT_HTTP"];
    let told =
        warnings(names.iter().chain(&of_kubernetes).chain(&["WINDLASS_ZZZZZZZZ"]).map(|name| (*name).to_owned()));
    let [slot, zzz] = told.as_slice() else { panic!("{told:?}") };
    assert!(
        slot.contains("WINDLASS_SLOT: is not a setting") && slot.contains("WINDLASS_SLOTS is the nearest"),
        "{slot}"
    );
    assert!(zzz.contains("WINDLASS_ZZZZZZZZ"), "{zzz}");
}

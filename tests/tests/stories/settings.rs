//! Settings from a file: what it is above and below, and how a mistake in it is told.

use std::fs;
use std::process::Command;

use tests::windlass::{Finished, Place, Running, windlass};

fn ended(command: Command) -> Finished {
    Running::start(command).finish()
}

/// `windlass` with that configuration in a place of its own.
fn with(place: &Place, file: &str, arguments: &[&str]) -> Command {
    let path = place.path("windlass.toml");
    fs::write(&path, file).expect("a file");
    let mut command = windlass();
    command.args(arguments).env("HOME", place.path("home")).env("WINDLASS_CONFIG", path);
    command
}

#[test]
fn flags_are_above_variables_those_above_the_file_and_that_above_the_defaults() {
    let place = Place::new();
    let dirs = ["flag", "variable", "file"].map(|name| place.path(name));
    let file = format!("data_dir = '{}'\n", dirs[2].display());
    let flag = dirs[0].display().to_string();
    for (told, variable, flags) in
        [(&dirs[2], false, &[][..]), (&dirs[1], true, &[]), (&dirs[0], true, &["--data-dir", &flag])]
    {
        let arguments = [&["run"], flags, &["--", "true"]].concat();
        let mut command = with(&place, &file, &arguments);
        if variable {
            command.env("WINDLASS_DATA_DIR", &dirs[1]);
        }
        assert!(!told.exists());
        let ended = ended(command);
        assert_eq!(ended.code, Some(0), "{}", ended.said());
        assert!(told.exists(), "{} isn't used", told.display());
    }
    // The flag for the file itself is above its variable, on both sides of the command.
    let other = place.path("other.toml");
    fs::write(&other, "slots = 0\n").expect("a file");
    for arguments in [
        ["--config", other.to_str().expect("a path"), "job", "list"],
        ["job", "list", "--config", other.to_str().expect("a path")],
    ] {
        let ended = ended(with(&place, &file, &arguments));
        assert!(ended.code == Some(2) && ended.said().contains("other.toml:1: slots: 0 is not"), "{}", ended.said());
    }
}

#[test]
fn a_mistake_in_the_file_ends_every_command_with_its_file_line_and_key() {
    let place = Place::new();
    let commands: [(&[&str], i32); 7] = [
        (&["run", "--", "true"], 125),
        (&["dev"], 2),
        (&["coordinator"], 2),
        (&["worker"], 2),
        (&["migrate"], 2),
        (&["job", "list"], 2),
        (&["workers", "list"], 2),
    ];
    for (arguments, code) in commands {
        let ended = ended(with(&place, "\nlisten = 7070\n\ntoken = 'hunter2'\n", arguments));
        let said = ended.said();
        assert_eq!((ended.code, said.lines().count()), (Some(code), 2), "{arguments:?}: {said}");
        assert!(said.contains("windlass.toml:2: listen: must be text in quotes"), "{arguments:?}: {said}");
        assert!(
            said.contains("windlass.toml:4: token: is a secret") && !said.contains("hunter2"),
            "{arguments:?}: {said}"
        );
    }
    // What shows only when the value is used is told the same way.
    let used = ended(with(&place, "slots = 1\njoin_token_file = '/nonexistent/token'\n", &["worker"]));
    assert_eq!(used.code, Some(2));
    assert!(used.said().contains("windlass.toml:2: join_token_file: /nonexistent/token: "), "{}", used.said());
    let missing = ended(with(&place, "", &["job", "list", "--config", "/nonexistent/w.toml"]));
    assert_eq!(missing.code, Some(2));
    assert!(missing.said().contains("/nonexistent/w.toml: No such file"), "{}", missing.said());
}

#[test]
fn a_check_names_every_mistake_or_shows_every_setting() {
    let place = Place::new();
    let mut command = with(&place, "lisen = 'x'\nslots = 0\n", &["config", "check"]);
    command.env("WINDLASS_TOKEN", "hunter2 b").env("WINDLASS_SLOT", "4");
    let wrong = ended(command);
    let (out, said) = (wrong.out(), wrong.said());
    assert_eq!((wrong.code, out.lines().count(), said.lines().count()), (Some(1), 3, 1), "{out}{said}");
    let file = place.path("windlass.toml").display().to_string();
    assert!(out.contains(&format!("{file}:1: lisen: is not a setting: listen is the nearest one\n")), "{out}");
    assert!(out.contains(&format!("{file}:2: slots: 0 is not a number")), "{out}");
    assert!(out.contains("environment: WINDLASS_TOKEN: holds no token") && !out.contains("hunter2"), "{out}");
    assert!(said.contains("WINDLASS_SLOT: is not a setting") && said.contains("WINDLASS_SLOTS"), "{said}");

    let mut command =
        with(&place, "url = 'http://ci.example'\n", &["config", "check", "--for", "client", "--output", "json"]);
    command.env("WINDLASS_TOKEN", "hunter2");
    let right = ended(command);
    assert_eq!((right.code, right.said().as_str()), (Some(0), ""), "{}", right.out());
    let found: serde_json::Value = serde_json::from_str(&right.out()).expect("one document");
    let of = |name: &str| {
        found["settings"].as_array().and_then(|all| all.iter().find(|one| one["variable"] == name)).cloned()
    };
    let (url, token) = (of("WINDLASS_URL").expect("it is there"), of("WINDLASS_TOKEN").expect("it is there"));
    assert_eq!((&url["value"], &url["from"]), (&"http://ci.example".into(), &format!("{file}:1").into()));
    assert_eq!((&token["value"], &token["from"]), (&"set".into(), &"environment, WINDLASS_TOKEN".into()));
    assert!(of("WINDLASS_SLOTS").is_none(), "a client has no slots");
}

//! `windlass key …`: deploy keys over the API. A private half goes one way: into the server.

use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use shared::clock;
use shared::secret::Secret;
use shared::settings::Settings;
use shared::spec::key_name_fault;
use shared::view::{DeployKeyView, ListedDeployKey};

use crate::args::api::Output;
use crate::args::key::{KeyArgs, KeyCommand, PairArgs};
use crate::client::{Client, Repeated, encoded, with_query};
use crate::exit::Error;
use crate::job::{print_document, read};
use crate::table;
use crate::terminal::{escaped, print, say, width};
use crate::timeline::duration;

const KEYS: &str = "/api/v1/deploy-keys";
const REKEY: &str = "/api/v1/vault/rekey";
/// The most bytes of a file that holds keys: more than either kind may have.
const FILE_BYTES_MAX: u64 = 128 * 1024;
/// Stands for standard input.
const STDIN: &str = "-";

#[derive(Deserialize)]
struct Page {
    deploy_keys: Vec<ListedDeployKey>,
    next_cursor: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Rekeyed {
    resealed: u64,
    complete: bool,
}

/// Does what `args` say, and returns the code to end with.
///
/// # Errors
/// When settings or files can't be used, or the API refuses or can't be reached.
pub fn key(args: &KeyArgs, settings: &Settings) -> Result<u8, Error> {
    if let Some(name) = named(&args.command) {
        check(name)?;
    }
    let client = Client::new(&args.api, settings)?;
    let output = args.api.output;
    match &args.command {
        KeyCommand::Add { name, pair, known_hosts } => {
            if pair.file.is_none() && !pair.generate {
                let line = "give the private key with --file F, or have one made with --generate";
                return Err(Error::Usage(line.to_owned()));
            }
            put(&client, name, pair, Some(known_hosts), ("if-none-match", "windlass key rotate"), output)
        }
        KeyCommand::Rotate { name, pair, known_hosts } => {
            if pair.file.is_none() && !pair.generate && known_hosts.is_none() {
                let line = "nothing would change: give --file F or --generate, --known-hosts F, or both";
                return Err(Error::Usage(line.to_owned()));
            }
            put(&client, name, pair, known_hosts.as_deref(), ("if-match", "windlass key add"), output)
        }
        KeyCommand::List => list(&client, output),
        KeyCommand::Show { name } => show(&client, name, output),
        KeyCommand::Remove { name } => {
            client.delete(&path(name))?;
            Ok(0)
        }
        KeyCommand::Rekey => rekey(&client, output),
    }
}

/// The key that the command is about, where it is about one.
fn named(command: &KeyCommand) -> Option<&str> {
    match command {
        KeyCommand::Add { name, .. } | KeyCommand::Rotate { name, .. } => Some(name),
        KeyCommand::Show { name } | KeyCommand::Remove { name } => Some(name),
        KeyCommand::List | KeyCommand::Rekey => None,
    }
}

/// Refuses what can't be a name before anybody is asked: in a path of the API it would mean something else.
fn check(name: &str) -> Result<(), Error> {
    let fault = if name.is_empty() { Some("must not be empty") } else { key_name_fault(name) };
    fault.map_or(Ok(()), |fault| Err(Error::failed(format_args!("name: {fault}"))))
}

/// Puts a key on the condition that the header names; where that doesn't hold, `instead` is the command to use.
fn put(
    client: &Client,
    name: &str,
    pair: &PairArgs,
    known_hosts: Option<&Path>,
    (condition, instead): (&str, &str),
    output: Output,
) -> Result<u8, Error> {
    if pair.file.as_deref() == Some(Path::new(STDIN)) && known_hosts == Some(Path::new(STDIN)) {
        return Err(Error::Usage("--file and --known-hosts can't both be standard input".to_owned()));
    }
    let mut body = Map::new();
    if let Some(file) = known_hosts {
        body.insert("known_hosts".to_owned(), text("--known-hosts", file)?.reveal().into());
    }
    if pair.generate {
        body.insert("generate".to_owned(), true.into());
    }
    let private_key = pair.file.as_deref().map(|file| text("--file", file)).transpose()?;
    let answer = client.put(&path(name), &with_private_key(body, private_key)?, &[(condition, "*")]);
    let answer = answer.map_err(|error| match error {
        Error::Failed(lines) if lines.iter().any(|line| line.to_lowercase().starts_with(condition)) => {
            let is = if condition == "if-match" { "is no" } else { "is already a" };
            Error::failed(format_args!("there {is} deploy key {name}: use `{instead}`"))
        }
        error => error,
    })?;
    let key: DeployKeyView = read(&answer)?;
    match output {
        Output::Json => print_document(&answer)?,
        Output::Table if pair.generate => print(&format!("{}\n", escaped(&key.public_key)))?,
        Output::Table => print(&format!("{}\n", escaped(&line(&key))))?,
    }
    if pair.generate {
        say(&line(&key));
        say(
            "register the public key at the repository's host now, for reading alone (without write access): until the host \
             knows it, jobs that use it fail as deploy_key_denied",
        );
    }
    Ok(0)
}

/// The body with the private half, as one text that is wiped when it is dropped.
fn with_private_key(body: Map<String, Value>, private_key: Option<Secret>) -> Result<Secret, Error> {
    let rest = Value::Object(body).to_string();
    let Some(private_key) = private_key else { return Ok(Secret::new(rest)) };
    let written = |error| Error::failed(format_args!("writing the request: {error}"));
    let quoted = Secret::new(serde_json::to_string(&private_key).map_err(written)?);
    let others = rest.strip_prefix('{').filter(|rest| *rest != "}").map_or("}".to_owned(), |rest| format!(",{rest}"));
    let mut whole = String::with_capacity(quoted.reveal().len() + others.len() + 32);
    whole.extend(["{\"private_key\":", quoted.reveal(), &others]);
    Ok(Secret::new(whole))
}

/// What `file` holds, or standard input.
///
/// # Errors
/// When it can't be read, is no text, or too long; nothing of it is told.
pub fn text(flag: &str, file: &Path) -> Result<Secret, Error> {
    let is_stdin = file == Path::new(STDIN);
    let name = if is_stdin { "standard input".to_owned() } else { file.display().to_string() };
    let failed = |why: &dyn std::fmt::Display| Error::failed(format_args!("{flag}: {name}: {why}"));
    // It is never longer than this, so that no copy is left behind where it grows.
    let mut text = String::with_capacity(usize::try_from(FILE_BYTES_MAX).unwrap_or_default() + 1);
    let read = if is_stdin {
        std::io::stdin().take(FILE_BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
    };
    let text = Secret::new(text);
    read.map_err(|error| failed(&error))?;
    if text.reveal().len() as u64 > FILE_BYTES_MAX {
        return Err(failed(&format_args!("is longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn list(client: &Client, output: Output) -> Result<u8, Error> {
    let (mut keys, mut cursor) = (Vec::new(), None);
    loop {
        let parameters = std::iter::once(("limit", "1000".to_owned())).chain(cursor.map(|cursor| ("cursor", cursor)));
        let page: Page = read(&client.get(&with_query(KEYS, &parameters.collect::<Vec<_>>()))?)?;
        keys.extend(page.deploy_keys);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    match output {
        Output::Json => print_document(&serde_json::json!({"deploy_keys": keys, "next_cursor": null}).to_string())?,
        Output::Table => {
            let now = clock::now();
            let row = |key: &ListedDeployKey| {
                let changed = format!("{} ago", duration(now.since(key.changed_at)));
                let cells = [
                    key.name.clone(),
                    key.version.to_string(),
                    key.algorithm.clone(),
                    changed,
                    key.fingerprint.clone(),
                ];
                cells.map(|cell| escaped(&cell).into_owned())
            };
            let rows: Vec<_> = keys.iter().map(row).collect();
            print(&table::layout(["NAME", "VERSION", "KIND", "CHANGED", "FINGERPRINT"], &rows, width()))?;
        }
    }
    Ok(0)
}

fn show(client: &Client, name: &str, output: Output) -> Result<u8, Error> {
    let answer = client.get(&path(name))?;
    let key: DeployKeyView = read(&answer)?;
    match output {
        Output::Json => print_document(&answer)?,
        Output::Table => {
            let hosts: Vec<_> = key.known_hosts.lines().map(|line| format!("  {}\n", escaped(line))).collect();
            let (about, public_key) = (line(&key), &key.public_key);
            print(&format!("{}\n{}\nhost keys:\n{}", escaped(&about), escaped(public_key), hosts.concat()))?;
        }
    }
    Ok(0)
}

/// Asks again until everything is moved.
fn rekey(client: &Client, output: Output) -> Result<u8, Error> {
    let mut all = Rekeyed { resealed: 0, complete: false };
    while !all.complete {
        let done: Rekeyed = read(&client.post(REKEY, "{}", None, Repeated::Harmless)?)?;
        all = Rekeyed { resealed: all.resealed + done.resealed, ..done };
        if !all.complete {
            say(&format!("{} moved so far", all.resealed));
        }
    }
    match output {
        Output::Json => {
            let document = serde_json::to_string(&all);
            print_document(&document.map_err(|error| Error::failed(format_args!("writing the result: {error}")))?)?;
        }
        Output::Table => print(&format!("{} moved on to the first master key\n", all.resealed))?,
    }
    Ok(0)
}

fn path(name: &str) -> String {
    format!("{KEYS}/{}", encoded(name))
}

/// A key in one line.
fn line(key: &DeployKeyView) -> String {
    format!("{}, version {}: {} {}", key.name, key.version, key.algorithm, key.fingerprint)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};
    use shared::secret::Secret;

    use super::with_private_key;

    #[test]
    fn the_private_half_comes_into_the_body_whatever_else_is_in_it() {
        let private_key = || Some(Secret::new("-----BEGIN\n\"x\"\n".to_owned()));
        let with = |rest: Value, key| {
            let rest: Map<String, Value> = rest.as_object().cloned().unwrap_or_default();
            serde_json::from_str::<Value>(with_private_key(rest, key).unwrap().reveal()).unwrap()
        };
        assert_eq!(with(json!({}), private_key()), json!({"private_key": "-----BEGIN\n\"x\"\n"}));
        let both = json!({"private_key": "-----BEGIN\n\"x\"\n", "known_hosts": "h"});
        assert_eq!(with(json!({"known_hosts": "h"}), private_key()), both);
        assert_eq!(with(json!({"generate": true}), None), json!({"generate": true}));
    }
}

//! Who may do what: the two tables of ARCHITECTURE.md, held against the program, each cell tried.

use std::collections::BTreeSet;
use std::thread;

use coordinator::api::rules::RULES;
use coordinator::caller::Caller;
use coordinator::store::TokenKind;
use serde_json::{Value, json};
use shared::id::Actor;
use shared::role::Role;
use shared::time::Period;
use tests::http::Answer;
use tests::windlass::windlass;

use crate::{JSON, Server, TOKEN};

const ARCHITECTURE: &str = include_str!("../../../ARCHITECTURE.md");
const ID: &str = "01934f5e-0000-7000-8000-000000000007";
const HOUR: Period = Period::from_secs(60 * 60);
/// What stands in the place of a token that a caller doesn't have.
const NONE: &str = "";

/// A row of one of the tables.
struct Row {
    what: String,
    /// `yes` or a status, for each caller in the order of [`callers`].
    cells: Vec<String>,
}

/// The rows that begin with this and a blank, without it.
fn rows(beginnings: &[&str]) -> Vec<Row> {
    let begins = |what: &str| beginnings.iter().any(|word| what.strip_prefix(word).is_some_and(|w| w.starts_with(' ')));
    let cells =
        ARCHITECTURE.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "));
    let rows = cells.filter(|(what, _)| begins(what));
    rows.map(|(what, cells)| Row { what: what.to_owned(), cells: cells.split(" | ").map(str::to_owned).collect() })
        .collect()
}

/// The callers in the order of the columns, with their tokens.
fn callers(server: &Server) -> Vec<(&'static str, String)> {
    let kinds = [TokenKind::Join].into_iter().chain(Role::ALL.map(TokenKind::Role));
    let made = kinds.map(|kind| {
        let by = Caller::from(Actor::Coordinator);
        let made = server.runtime.block_on(server.played.service.make_token(&by, kind, kind.name(), HOUR));
        (kind.name(), made.expect("a token").text.reveal().to_owned())
    });
    [("nobody", NONE.to_owned())].into_iter().chain(made).collect()
}

/// A body that the route understands.
fn body(method: &str, path: &str) -> Value {
    match (method, path) {
        ("POST", "/api/v1/jobs") => json!({"steps": [{"run": "true"}]}),
        ("POST", "/api/v1/jobs/cancel") => json!({"filter": {"tag": "nobody-has-it"}}),
        ("POST", "/api/v1/tokens") => json!({"role": "viewer", "name": "somebody"}),
        _ => json!({}),
    }
}

fn ask(server: &Server, token: &str, route: &str, headers: &[(&str, &str)]) -> Answer {
    let (method, path) = route.split_once(' ').expect("a method and a path");
    let body = body(method, path).to_string();
    let path = path.replace("{id}", ID).replace("{name}", "app");
    let (headers, body) = match method {
        "POST" | "PUT" => ([headers, &[JSON]].concat(), body.as_bytes()),
        _ => (headers.to_vec(), &b""[..]),
    };
    server.client.with_token(token).send(method, &path, &headers, body)
}

/// Whether the answer is what the cell says. A route that isn't there answers nobody.
fn fits(cell: &str, answer: &Answer) -> bool {
    let status = answer.status;
    let lost = answer.rejected_fields().iter().any(|field| ["path", "method"].contains(field));
    if cell == "yes" { !lost && !matches!(status, 401 | 403 | 429) && status < 500 } else { cell == status.to_string() }
}

fn routes() -> Vec<Row> {
    rows(&["GET", "HEAD", "POST", "PUT", "DELETE"])
}

#[test]
fn the_table_of_routes_has_every_route_and_no_other() {
    let listed: BTreeSet<String> = routes().into_iter().map(|row| row.what).collect();
    let ruled: BTreeSet<String> = RULES.iter().map(|rule| format!("{} {}", rule.method, rule.path)).collect();
    assert_eq!(listed, ruled);
    let server = Server::start();
    let described = server.get("/api/openapi.json").json;
    for (path, methods) in described["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            let route = format!("{} {path}", method.to_uppercase());
            assert!(listed.contains(&route), "{route} isn't in the table");
        }
    }
}

#[test]
fn every_route_answers_every_role_as_the_table_says() {
    let server = Server::start();
    let callers = callers(&server);
    let (mut wrong, mut tried, mut refused) = (Vec::new(), 0, 0);
    for Row { what, cells } in routes() {
        assert_eq!(cells.len(), callers.len(), "{what}");
        for ((caller, token), cell) in callers.iter().zip(&cells) {
            let answer = ask(&server, token, &what, &[]);
            let status = answer.status;
            tried += 1;
            refused += usize::from(cell == "403" && *caller != "join" && !what.starts_with("GET"));
            if !fits(cell, &answer) {
                wrong.push(format!("{what} by {caller}: {status}, and the table says {cell}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{tried} cells, {refused} of them commands that a role doesn't allow");
    let audit = server.get("/api/v1/audit?limit=1000").json;
    let lines = audit["lines"].as_array().expect("lines");
    let noted = lines.iter().filter(|line| line["outcome"].as_str().is_some_and(|text| text.starts_with("refused: ")));
    assert_eq!(noted.count(), refused, "each of them is in the audit");
}

#[test]
fn the_pages_cookie_opens_what_its_token_opens_and_changes_something_for_our_own_page_alone() {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let server = Server::start();
    let base = server.api.address().to_string();
    let (own, other) = (format!("http://{base}"), "http://evil.example");
    let mut wrong = Vec::new();
    for Row { what, cells } in routes() {
        for ((caller, token), cell) in callers(&server).iter().zip(&cells).filter(|((_, token), _)| token != NONE) {
            let cookie = format!("windlass_token={}", URL_SAFE_NO_PAD.encode(token));
            let reads = what.starts_with("GET") || what.starts_with("HEAD");
            let answer = ask(&server, NONE, &what, &[("cookie", &cookie), ("origin", &own)]);
            let status = answer.status;
            if !fits(cell, &answer) {
                wrong.push(format!("{what} by {caller}: {status}, and the table says {cell}"));
            }
            for headers in [&[("cookie", cookie.as_str()), ("origin", other)][..], &[("cookie", cookie.as_str())][..]] {
                let answer = ask(&server, NONE, &what, headers);
                let status = answer.status;
                let open = cells.iter().all(|cell| cell == "yes");
                let expected = if reads || open { fits(cell, &answer) } else { status == 403 };
                if !expected {
                    wrong.push(format!("{what} by {caller} for another page: {status}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The words of a command, with what it needs to be understood.
fn words(command: &str) -> Vec<String> {
    let more: &[&str] = match command {
        "windlass job submit" => &["--", "true"],
        "windlass job list" | "windlass key list" | "windlass key rekey" => &[],
        "windlass workers list" | "windlass token list" | "windlass token join" => &[],
        "windlass key add" => &["app", "--generate", "--known-hosts", "KNOWN_HOSTS"],
        "windlass key rotate" => &["other", "--generate"],
        "windlass key show" | "windlass key remove" => &["other"],
        "windlass token create" => &["--role", "viewer", "--name", "somebody"],
        _ => &[ID],
    };
    command.split(' ').skip(1).chain(more.iter().copied()).map(str::to_owned).collect()
}

fn commands() -> Vec<Row> {
    rows(&["windlass"])
}

/// The names under `Commands:` in the help of these words.
fn subcommands(words: &[&str]) -> Vec<String> {
    let help = windlass().args(words).arg("--help").output().expect("the help");
    let help = String::from_utf8(help.stdout).expect("text");
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = lines
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn the_table_of_commands_has_every_command_that_asks_the_api() {
    let listed: BTreeSet<String> = commands().into_iter().map(|row| row.what).collect();
    let asks_nobody = ["run", "dev", "coordinator", "worker", "migrate", "completions", "config"];
    let mut known = BTreeSet::new();
    for group in subcommands(&[]) {
        if !asks_nobody.contains(&group.as_str()) {
            known.extend(subcommands(&[&group]).iter().map(|name| format!("windlass {group} {name}")));
        }
    }
    assert_eq!(listed, known);
}

/// How the command ends for whoever has that token: the status of the refusal, or `yes`.
fn outcome(server: &Server, words: &[String], token: &str) -> String {
    let mut command = windlass();
    let home = tempfile::tempdir().expect("a directory");
    let known_hosts = home.path().join("known_hosts");
    std::fs::write(
        &known_hosts,
        "git.example.org ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3R8zgm9h1bPKVkLPTtDnFYBlxTPzB1nyIXb3cRPyxM\n",
    )
    .expect("it can be written");
    let words = words.iter().map(|word| word.replace("KNOWN_HOSTS", &known_hosts.display().to_string()));
    command.args(words).env("WINDLASS_URL", format!("http://{}", server.api.address()));
    command.env("HOME", home.path()).env_remove("XDG_STATE_HOME");
    if token != NONE {
        command.env("WINDLASS_TOKEN", token);
    }
    let ended = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&ended.stderr);
    match () {
        () if said.contains("needs the role") || said.contains("is a join token") => "403".to_owned(),
        () if said.contains("must be given once, as `Bearer`") || said.contains("WINDLASS_TOKEN") => "401".to_owned(),
        () if ended.status.success() || said.contains("there is no") => "yes".to_owned(),
        () => format!("{}: {said}", ended.status),
    }
}

#[test]
fn every_command_does_for_every_role_what_the_table_says() {
    let server = Server::start();
    let callers = callers(&server);
    let rows = commands();
    let wrong: Vec<String> = thread::scope(|scope| {
        let (server, callers) = (&server, &callers);
        let tried = rows.chunks(rows.len().div_ceil(4)).map(|rows| {
            scope.spawn(move || {
                let mut wrong = Vec::new();
                for Row { what, cells } in rows {
                    assert_eq!(cells.len(), callers.len(), "{what}");
                    for ((caller, token), cell) in callers.iter().zip(cells) {
                        let came = outcome(server, &words(what), token);
                        if came != *cell {
                            wrong.push(format!("{what} by {caller}: {came}, and the table says {cell}"));
                        }
                    }
                }
                wrong
            })
        });
        tried.collect::<Vec<_>>().into_iter().flat_map(|tried| tried.join().expect("it was tried")).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(server.client.with_token(TOKEN).get("/api/v1/jobs").status, 200);
}

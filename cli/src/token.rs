//! `windlass token …`: makes tokens through the API and prints each once, lists them, revokes them.

use serde::Deserialize;
use serde_json::{Value, json};

use shared::clock;
use shared::id::TokenId;
use shared::settings::Settings;
use shared::time::{Period, Time};

use crate::args::admin::{TokenArgs, TokenCommand};
use crate::args::api::Output;
use crate::client::{Client, Repeated};
use crate::exit::{self, Error};
use crate::job::{print_document, read};
use crate::table;
use crate::terminal::{escaped, print, say, width};
use crate::timeline::duration;

const TOKENS: &str = "/api/v1/tokens";
const JOIN: &str = "/api/v1/tokens/join";

#[derive(Deserialize)]
struct Made {
    token: String,
    expires_at: Option<Time>,
}

#[derive(Deserialize)]
struct Tokens {
    tokens: Vec<Token>,
}

#[derive(Deserialize)]
struct Token {
    id: TokenId,
    name: String,
    kind: String,
    created_at: Time,
    expires_at: Option<Time>,
}

/// Does what `args` say, and returns the code to end with.
///
/// # Errors
/// When settings can't be used, or the API refuses or can't be reached.
pub fn token(args: &TokenArgs, settings: &Settings) -> Result<u8, Error> {
    let client = Client::new(&args.api, settings)?;
    let output = args.api.output;
    match &args.command {
        TokenCommand::Create { role, name, expires } => {
            let body = json!({"role": role, "name": name});
            make(&client, TOKENS, body, *expires, "it counts", output)
        }
        TokenCommand::Join { name, expires } => {
            let body = name.as_ref().map_or_else(|| json!({}), |name| json!({"name": name}));
            make(&client, JOIN, body, *expires, "workers can enrol with it", output)
        }
        TokenCommand::List => list(&client, output),
        TokenCommand::Revoke { ids } => revoke(&client, ids),
    }
}

/// Makes a token and prints it. It is made twice where an answer is lost: one that nobody has read harms nobody.
fn make(
    client: &Client,
    path: &str,
    mut body: Value,
    expires: Option<Period>,
    counts: &str,
    output: Output,
) -> Result<u8, Error> {
    if let (Some(expires), Some(fields)) = (expires, body.as_object_mut()) {
        fields.insert("expires".to_owned(), expires.to_string().into());
    }
    let answer = client.post(path, &body.to_string(), None, Repeated::Harmless)?;
    match output {
        Output::Json => print_document(&answer)?,
        Output::Table => {
            let made: Made = read(&answer)?;
            if let Some(expires) = made.expires_at {
                say(&format!("{counts} until {expires}"));
            }
            print(&format!("{}\n", made.token))?;
        }
    }
    Ok(0)
}

fn list(client: &Client, output: Output) -> Result<u8, Error> {
    let answer = client.get(TOKENS)?;
    if output == Output::Json {
        print_document(&answer)?;
        return Ok(0);
    }
    let now = clock::now();
    let rows = read::<Tokens>(&answer)?.tokens.into_iter().map(|token| {
        let expires =
            token.expires_at.map_or_else(|| "never".to_owned(), |at| format!("in {}", duration(at.since(now))));
        let created = format!("{} ago", duration(now.since(token.created_at)));
        [token.id.to_string(), token.kind, created, expires, token.name].map(|cell| escaped(&cell).into_owned())
    });
    print(&table::layout(["ID", "KIND", "CREATED", "EXPIRES", "NAME"], &rows.collect::<Vec<_>>(), width()))?;
    Ok(0)
}

/// Revokes each; one that isn't there doesn't keep it from the others.
fn revoke(client: &Client, ids: &[TokenId]) -> Result<u8, Error> {
    let mut code = 0;
    for id in ids {
        match client.delete(&format!("{TOKENS}/{id}")) {
            Ok(_) => say(&format!("{id}: revoked")),
            Err(Error::Failed(lines)) => {
                for line in lines {
                    say(&format!("{id}: {line}"));
                }
                code = exit::FAILED;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(code)
}

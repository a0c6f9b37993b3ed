//! `windlass token …`: makes tokens through the API, and prints each once.

use serde::Deserialize;
use serde_json::{Map, Value};

use shared::settings::Settings;
use shared::time::Time;

use crate::args::admin::{TokenArgs, TokenCommand};
use crate::args::api::Output;
use crate::client::{Client, Repeated};
use crate::exit::Error;
use crate::job::{print_document, read};
use crate::terminal::{print, say};

const JOIN: &str = "/api/v1/tokens/join";

#[derive(Deserialize)]
struct Made {
    token: String,
    expires_at: Option<Time>,
}

/// Does what `args` say, and returns the code to end with.
///
/// # Errors
/// When settings can't be used, or the API refuses or can't be reached.
pub fn token(args: &TokenArgs, settings: &Settings) -> Result<u8, Error> {
    let client = Client::new(&args.api, settings)?;
    let TokenCommand::Join { name, expires } = &args.command;
    let name = name.as_ref().map(|name| ("name".to_owned(), Value::from(name.as_str())));
    let expires = expires.map(|expires| ("expires".to_owned(), Value::from(expires.to_string())));
    let body: Map<String, Value> = name.into_iter().chain(expires).collect();
    // A token that nobody has read harms nobody: asking twice is harmless.
    let answer = client.post(JOIN, &Value::from(body).to_string(), None, Repeated::Harmless)?;
    match args.api.output {
        Output::Json => print_document(&answer)?,
        Output::Table => {
            let made: Made = read(&answer)?;
            if let Some(expires) = made.expires_at {
                say(&format!("workers can enrol with it until {expires}"));
            }
            print(&format!("{}\n", made.token))?;
        }
    }
    Ok(0)
}

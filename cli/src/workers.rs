//! `windlass workers …`: who the workers are, and what is wanted of them.

use serde::Deserialize;

use shared::clock;
use shared::id::WorkerId;
use shared::settings::Settings;
use shared::time::Time;
use shared::view::WorkerView;

use crate::args::admin::{WorkerIds, WorkersArgs, WorkersCommand};
use crate::args::api::Output;
use crate::client::{Client, Repeated};
use crate::exit::{self, Error};
use crate::job::{print_document, read};
use crate::table;
use crate::terminal::{escaped, print, say, width};
use crate::timeline::duration;

const WORKERS: &str = "/api/v1/workers";

#[derive(Deserialize)]
struct Workers {
    workers: Vec<WorkerView>,
}

/// Does what `args` say, and returns the code to end with.
///
/// # Errors
/// When settings can't be used, or the API refuses or can't be reached.
pub fn workers(args: &WorkersArgs, settings: &Settings) -> Result<u8, Error> {
    let client = Client::new(&args.api, settings)?;
    let output = args.api.output;
    match &args.command {
        WorkersCommand::List => list(&client, output),
        WorkersCommand::Pause(ids) => want(&client, ids, "pause", output),
        WorkersCommand::Resume(ids) => want(&client, ids, "resume", output),
        WorkersCommand::Drain(ids) => want(&client, ids, "drain", output),
        WorkersCommand::Revoke(ids) => want(&client, ids, "revoke", output),
    }
}

fn list(client: &Client, output: Output) -> Result<u8, Error> {
    let answer = client.get(WORKERS)?;
    match output {
        Output::Json => print_document(&answer)?,
        Output::Table => print_table(&read::<Workers>(&answer)?.workers)?,
    }
    Ok(0)
}

/// Tells the API what is wanted of each; one that it refuses doesn't keep it from the others.
fn want(client: &Client, WorkerIds { ids }: &WorkerIds, what: &str, output: Output) -> Result<u8, Error> {
    let (mut answers, mut code) = (Vec::new(), 0);
    for id in ids {
        match client.post(&path(*id, what), "{}", None, Repeated::Harmless) {
            Ok(answer) => answers.push(answer),
            Err(Error::Failed(lines)) => {
                for line in lines {
                    say(&format!("{id}: {line}"));
                }
                code = exit::FAILED;
            }
            Err(error) => return Err(error),
        }
    }
    match (output, answers.as_slice()) {
        (Output::Json, [answer]) if ids.len() == 1 => print_document(answer)?,
        (Output::Json, answers) => print_document(&format!("[{}]", answers.join(",")))?,
        (Output::Table, []) => {}
        (Output::Table, answers) => {
            print_table(&answers.iter().map(|answer| read(answer)).collect::<Result<Vec<_>, _>>()?)?;
        }
    }
    Ok(code)
}

fn path(id: WorkerId, what: &str) -> String {
    format!("{WORKERS}/{id}/{what}")
}

fn print_table(workers: &[WorkerView]) -> Result<(), Error> {
    let now = clock::now();
    let rows: Vec<_> = workers.iter().map(|w| row(w, now).map(|cell| escaped(&cell).into_owned())).collect();
    print(&table::layout(["ID", "STATE", "RUNNING", "SEEN", "NAME", "TAGS"], &rows, width()))
}

fn row(worker: &WorkerView, now: Time) -> [String; 6] {
    let seen = worker.seen_at.map_or_else(|| "never".to_owned(), |at| format!("{} ago", duration(now.since(at))));
    let state = if worker.state.name() == worker.mode.name() || worker.mode.name() == "active" {
        worker.state.name().to_owned()
    } else {
        format!("{} ({})", worker.state.name(), worker.mode.name())
    };
    let running = format!("{} of {}", worker.running, worker.slots);
    [worker.id.to_string(), state, running, seen, worker.name.clone(), worker.tags.join(" ")]
}

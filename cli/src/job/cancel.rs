//! `windlass job cancel`: jobs by their ids, or all that a filter lets through.

use serde::Deserialize;
use serde_json::{Map, Value};

use shared::id::JobId;
use shared::job::StateName;

use super::{JOBS, print_document, read};
use crate::args::api::Output;
use crate::args::job::CancelArgs;
use crate::client::{Client, Repeated};
use crate::exit::{self, Error};
use crate::table;
use crate::terminal::{print, say, width};

#[derive(Deserialize)]
struct Canceled {
    id: JobId,
    state: StateName,
}

#[derive(Deserialize)]
struct Matched {
    matched: u64,
}

/// Asks for the cancel, and prints in which state that found each job.
pub fn cancel(client: &Client, args: &CancelArgs, output: Output) -> Result<u8, Error> {
    let conditions = args.filter.conditions();
    match (args.ids.is_empty(), conditions.is_empty()) {
        (false, true) => by_ids(client, args, output),
        (true, false) if args.force || args.grace.is_some() => {
            Err(Error::Usage("--force and --grace go with ids, not with a filter".to_owned()))
        }
        (true, false) => by_filter(client, args, conditions, output),
        (true, true) => Err(Error::Usage("give the ids of jobs, or a filter like --state queued".to_owned())),
        (false, false) => Err(Error::Usage("give either ids or a filter, not both".to_owned())),
    }
}

fn by_ids(client: &Client, args: &CancelArgs, output: Output) -> Result<u8, Error> {
    let body = Value::from(body(args)).to_string();
    let mut answers = Vec::new();
    let mut code = 0;
    for id in &args.ids {
        match client.post(&format!("{JOBS}/{id}/cancel"), &body, None, Repeated::Harmless) {
            Ok(answer) => answers.push(answer),
            // The others are still to be canceled.
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
        (Output::Json, [answer]) if args.ids.len() == 1 => print_document(answer)?,
        (Output::Json, answers) => print_document(&format!("[{}]", answers.join(",")))?,
        (Output::Table, answers) => {
            let row = |answer: &String| read(answer).map(|c: Canceled| [c.id.to_string(), c.state.to_string()]);
            let rows = answers.iter().map(row).collect::<Result<Vec<_>, _>>()?;
            if !rows.is_empty() {
                print(&table::layout(["ID", "STATE"], &rows, width()))?;
            }
        }
    }
    Ok(code)
}

fn by_filter(
    client: &Client,
    args: &CancelArgs,
    conditions: Vec<(&'static str, String)>,
    output: Output,
) -> Result<u8, Error> {
    let filter: Map<String, Value> =
        conditions.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let mut body = body(args);
    body.insert("filter".to_owned(), filter.into());
    let answer = client.post(&format!("{JOBS}/cancel"), &Value::from(body).to_string(), None, Repeated::Harmless)?;
    match output {
        Output::Json => print_document(&answer)?,
        Output::Table => print(&format!("{} matched\n", read::<Matched>(&answer)?.matched))?,
    }
    Ok(0)
}

/// What is asked for, without what it is about.
fn body(args: &CancelArgs) -> Map<String, Value> {
    let fields = [
        ("reason", args.reason.as_deref().map(Value::from)),
        ("force", args.force.then_some(true.into())),
        ("grace", args.grace.map(|grace| grace.to_string().into())),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

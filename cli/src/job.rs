//! `windlass job …`: each command is a few requests and what is made of their answers.

use serde_json::Value;

use shared::id::JobId;
use shared::job::{Event, StateName};
use shared::settings::Settings;
use shared::view::JobView;

use crate::args::api::Output;
use crate::args::job::{JobArgs, JobCommand};
use crate::client::{Client, Repeated};
use crate::exit::Error;
use crate::terminal::print;

mod cancel;
mod explain;
mod list;
mod logs;
mod show;
mod submit;
mod watch;

const JOBS: &str = "/api/v1/jobs";

/// Does what `args` say, and returns the code to end with.
///
/// # Errors
/// When settings can't be used, or the API refuses or can't be reached.
pub fn job(args: &JobArgs, settings: &Settings) -> Result<u8, Error> {
    let client = Client::new(&args.api, settings)?;
    let output = args.api.output;
    match &args.command {
        JobCommand::Submit(submit) => submit::submit(&client, submit, output),
        JobCommand::List(list) => list::list(&client, list, output),
        JobCommand::Show { id } => show::show(&client, *id, output),
        JobCommand::Explain { id } => explain::explain(&client, *id, output),
        JobCommand::Logs(logs) => logs::logs(&client, logs, output),
        JobCommand::Cancel(cancel) => cancel::cancel(&client, cancel, output),
        JobCommand::Retry { id } => retry(&client, *id, output),
        JobCommand::Watch { id } => watch::watch(&client, *id, output),
    }
}

fn retry(client: &Client, id: JobId, output: Output) -> Result<u8, Error> {
    let answer = client.post(&format!("{JOBS}/{id}/retry"), "{}", None, Repeated::Doubles)?;
    match output {
        Output::Json => print_document(&answer)?,
        Output::Table => print(&format!("{}\n", read::<JobView>(&answer)?.id))?,
    }
    Ok(0)
}

/// Prints an answer of the API as it came.
pub fn print_document(answer: &str) -> Result<(), Error> {
    print(&format!("{}\n", answer.trim_end()))
}

/// The value that an answer holds.
pub fn read<T: serde::de::DeserializeOwned>(answer: &str) -> Result<T, Error> {
    serde_json::from_str(answer).map_err(|error| unreadable(&error))
}

/// An event as the API shows it: without its job, which whoever asks has named.
fn event(id: JobId, mut shown: Value) -> Result<Event, Error> {
    if let Some(fields) = shown.as_object_mut() {
        fields.entry("job").or_insert_with(|| id.to_string().into());
    }
    serde_json::from_value(shown).map_err(|error| unreadable(&error))
}

fn unreadable(error: &serde_json::Error) -> Error {
    Error::failed(format_args!("the server's answer can't be read (is it of another version?): {error}"))
}

/// Hands each event of a job to `each`, with its JSON, until its last; returns the state that the job ended in.
fn events_to_the_end(
    client: &Client,
    id: JobId,
    mut each: impl FnMut(&Event, &str) -> Result<(), Error>,
) -> Result<StateName, Error> {
    client.follow(&format!("{JOBS}/{id}/events"), |frame| each(&event(id, read(&frame.data)?)?, &frame.data))?;
    Ok(read::<JobView>(&client.get(&format!("{JOBS}/{id}"))?)?.state)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::event;

    #[test]
    fn an_event_of_the_api_belongs_to_the_job_that_was_asked_about() {
        let id = "01934f5e-0000-7000-8000-000000000007".parse().unwrap();
        let shown = json!({"seq": 4, "at": "2026-01-01T00:00:00Z", "kind": "step_started", "attempt": 1,
                           "actor": "coordinator", "name": null, "step": 2});
        let event = event(id, shown).unwrap();
        assert_eq!((event.job, event.seq.0, event.kind.name()), (id, 4, "step_started"));
        assert!(super::event(id, json!({"kind": "of tomorrow"})).is_err());
    }
}

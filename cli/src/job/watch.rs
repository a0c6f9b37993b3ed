//! `windlass job watch`: the timeline while it grows.

use shared::id::JobId;
use shared::job::StateName;
use shared::time::Time;

use super::{events_to_the_end, print_document};
use crate::args::api::Output;
use crate::client::Client;
use crate::exit::{self, Error};
use crate::terminal::{escaped, print};
use crate::timeline::{self, Timeline, duration};

/// Prints each event as it comes, until the last; the code says whether the job succeeded. In JSON the whole timeline is
/// one document at the end.
pub fn watch(client: &Client, id: JobId, output: Output) -> Result<u8, Error> {
    let mut began: Option<Time> = None;
    let mut events = Vec::new();
    let mut spent = Timeline::default();
    let state = events_to_the_end(client, id, |event, data| {
        spent.add(event);
        if output == Output::Json {
            events.push(data.to_owned());
            return Ok(());
        }
        let since = event.at.since(*began.get_or_insert(event.at));
        print(&format!("{:>9}  {}\n", duration(since), escaped(&timeline::words(event))))
    })?;
    match output {
        Output::Json => print_document(&format!("{{\"events\":[{}]}}", events.join(",")))?,
        Output::Table => print(&format!("\n{}\n", spent.line()))?,
    }
    Ok(if state == StateName::Succeeded { 0 } else { exit::FAILED })
}

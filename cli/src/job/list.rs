//! `windlass job list`: pages through the API up to the limit.

use serde::Deserialize;
use serde_json::{Value, json};

use shared::clock;
use shared::spec::Action;
use shared::time::Time;
use shared::view::JobView;

use super::{JOBS, print_document, read, unreadable};
use crate::args::api::Output;
use crate::args::job::ListArgs;
use crate::client::{Client, with_query};
use crate::exit::Error;
use crate::table;
use crate::terminal::{escaped, print, width};
use crate::timeline::duration;

/// The most jobs of one page: as many as the API gives unasked, so that a page of large jobs stays readable.
const PAGE_MAX: u32 = 100;

/// One answer of the API; the jobs are left as they came.
#[derive(Deserialize)]
struct Page {
    jobs: Vec<Value>,
    next_cursor: Option<String>,
}

/// Prints the jobs that the filter lets through.
pub fn list(client: &Client, args: &ListArgs, output: Output) -> Result<u8, Error> {
    let mut jobs: Vec<Value> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let left = args.limit.saturating_sub(u32::try_from(jobs.len()).unwrap_or(u32::MAX));
        let mut parameters = args.filter.conditions();
        parameters.push(("limit", left.min(PAGE_MAX).to_string()));
        parameters.extend(cursor.map(|cursor| ("cursor", cursor)));
        let answer = client.get(&with_query(JOBS, &parameters))?;
        let page: Page = read(&answer)?;
        let whole = jobs.is_empty();
        let count = u32::try_from(page.jobs.len()).unwrap_or(u32::MAX);
        jobs.extend(page.jobs);
        cursor = page.next_cursor.filter(|_| count > 0);
        if cursor.is_some() && count < left {
            continue;
        }
        match output {
            Output::Json if whole => print_document(&answer)?,
            Output::Json => print_document(&json!({"jobs": jobs, "next_cursor": cursor}).to_string())?,
            Output::Table => print_table(jobs)?,
        }
        return Ok(0);
    }
}

fn print_table(jobs: Vec<Value>) -> Result<(), Error> {
    let now = clock::now();
    let mut rows = Vec::with_capacity(jobs.len());
    for job in jobs {
        let job: JobView = serde_json::from_value(job).map_err(|error| unreadable(&error))?;
        rows.push(row(&job, now).map(|cell| escaped(&cell).into_owned()));
    }
    print(&table::layout(["ID", "STATE", "AGE", "TOOK", "WHAT"], &rows, width()))
}

fn row(job: &JobView, now: Time) -> [String; 5] {
    let took = job.finished_at.map_or_else(String::new, |end| duration(end.since(job.created_at)));
    let age = duration(now.since(job.created_at));
    [job.id.to_string(), job.state.to_string(), age, took, what(job)]
}

/// What a job does, in one line: its first step, and where.
pub fn what(job: &JobView) -> String {
    let step = job.spec.steps.first().map_or_else(String::new, |step| match (&step.name, &step.action) {
        (Some(name), _) => name.clone(),
        (None, Action::Run(script)) => script.trim().to_owned(),
        (None, Action::Exec(argv)) => argv.join(" "),
    });
    match &job.spec.repository {
        None => step,
        Some(repository) => {
            let reference = repository.reference.as_ref().map_or_else(String::new, |reference| format!(" {reference}"));
            format!("{step} ({}{reference})", repository.url)
        }
    }
}

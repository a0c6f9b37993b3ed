//! `windlass job submit`: one job from flags, or what a file holds.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use shared::clock;
use shared::job::StateName;
use shared::spec::document;
use shared::view::JobView;

use super::{JOBS, events_to_the_end, print_document, read};
use crate::args::api::Output;
use crate::args::job::SubmitArgs;
use crate::client::{Client, Repeated};
use crate::exit::{self, Error};
use crate::repo::{self, Repo};
use crate::terminal::{print, say};

/// The most bytes of a request that the API takes: 8 MiB.
const BODY_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The answer to a submission: one job or many.
#[derive(Deserialize)]
#[serde(untagged)]
enum Submitted {
    Many { jobs: Vec<JobView> },
    One(Box<JobView>),
}

/// Submits, prints the ids, and waits if asked to.
pub fn submit(client: &Client, args: &SubmitArgs, output: Output) -> Result<u8, Error> {
    let body = match &args.file {
        Some(file) => from_file(file)?,
        None => from_flags(args)?,
    };
    let key = clock::random_uuid().to_string();
    let (body, header) = with_keys(body, &key);
    let answer = client.post(JOBS, &body.to_string(), header.then_some(key.as_str()), Repeated::Harmless)?;
    let jobs = match read(&answer)? {
        Submitted::Many { jobs } => jobs,
        Submitted::One(job) => vec![*job],
    };
    match output {
        Output::Json => print_document(&answer)?,
        Output::Table => jobs.iter().try_for_each(|job| print(&format!("{}\n", job.id)))?,
    }
    if args.wait { wait(client, &jobs) } else { Ok(0) }
}

/// Waits for the end of every job; the code says whether all succeeded.
fn wait(client: &Client, jobs: &[JobView]) -> Result<u8, Error> {
    let mut code = 0;
    for job in jobs {
        let state = events_to_the_end(client, job.id, |_, _| Ok(()))?;
        say(&format!("{} {state}", job.id));
        if state != StateName::Succeeded {
            code = exit::FAILED;
        }
    }
    Ok(code)
}

fn from_file(file: &Path) -> Result<Value, Error> {
    let name = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(BODY_BYTES_MAX + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(BODY_BYTES_MAX + 1).read_to_string(&mut text))
    };
    read.map_err(|error| Error::failed(format_args!("{name}: {error}")))?;
    if text.len() as u64 > BODY_BYTES_MAX {
        return Err(Error::failed(format_args!("{name}: is longer than {BODY_BYTES_MAX} bytes")));
    }
    document::read(&text).map_err(|fault| Error::failed(format_args!("{name}: {fault}")))
}

fn from_flags(args: &SubmitArgs) -> Result<Value, Error> {
    if args.command.is_empty() {
        return Err(Error::Usage("give a FILE, - for standard input, or a command after --".to_owned()));
    }
    let entries = |pairs: &[(String, String)]| -> Value {
        pairs.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect::<Map<_, _>>().into()
    };
    let mut step = json!({"exec": args.command});
    let mut spec = json!({"tags": args.tag, "env": entries(&args.env), "labels": entries(&args.label)});
    if let (Some(name), Some(step)) = (&args.name, step.as_object_mut()) {
        step.insert("name".to_owned(), name.as_str().into());
    }
    let repository = args.repo.as_deref().map(|repo| repository(repo, args)).transpose()?;
    let optional = [
        ("steps", Some(json!([step]))),
        ("repository", repository),
        ("priority", args.priority.map(|priority| priority.name().into())),
        ("timeout", args.timeout.map(|timeout| timeout.to_string().into())),
    ];
    for (field, value) in optional {
        if let (Some(value), Some(spec)) = (value, spec.as_object_mut()) {
            spec.insert(field.to_owned(), value);
        }
    }
    Ok(spec)
}

/// A path here is sent as an absolute one: the worker may have the same host, never the same working directory.
fn repository(repo: &str, args: &SubmitArgs) -> Result<Value, Error> {
    let repo = Repo::find(repo).map_err(|why| Error::failed(format_args!("--repo: {why}")))?;
    if repo::shown(repo.url()) != repo.url() {
        return Err(Error::Usage("--repo: a URL must hold no password".to_owned()));
    }
    let mut repository = Map::from_iter([("url".to_owned(), Value::from(repo.url()))]);
    let optional = [("ref", &args.reference), ("deploy_key", &args.deploy_key), ("history", &args.history)];
    let given = optional.into_iter().filter_map(|(field, value)| Some((field.to_owned(), value.as_deref()?.into())));
    repository.extend(given);
    if args.submodules {
        repository.insert("submodules".to_owned(), true.into());
    }
    Ok(repository.into())
}

/// The body, and whether `key` goes into a header: in a batch each job gets one of its own, unless it has one.
fn with_keys(mut body: Value, key: &str) -> (Value, bool) {
    let Some(jobs) = body.get_mut("jobs").and_then(Value::as_array_mut) else { return (body, true) };
    for (index, job) in jobs.iter_mut().enumerate() {
        if let Some(job) = job.as_object_mut() {
            job.entry("idempotency_key").or_insert_with(|| format!("{key}-{index}").into());
        }
    }
    (body, false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{from_flags, with_keys};
    use crate::args::job::SubmitArgs;

    fn command(argv: &[&str]) -> SubmitArgs {
        SubmitArgs {
            file: None,
            repo: None,
            reference: None,
            deploy_key: None,
            history: None,
            submodules: false,
            tag: Vec::new(),
            priority: None,
            env: Vec::new(),
            label: Vec::new(),
            timeout: None,
            name: None,
            wait: false,
            command: argv.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    #[test]
    fn flags_make_a_specification_that_the_grammar_takes() {
        let args = SubmitArgs {
            repo: Some("/".into()),
            reference: Some("main".into()),
            deploy_key: Some("app".into()),
            history: Some("full".into()),
            submodules: true,
            tag: vec!["linux".into()],
            priority: Some(shared::spec::Priority::High),
            env: vec![("A".into(), "1".into())],
            label: vec![("team".into(), "core".into())],
            timeout: Some("90s".parse().unwrap()),
            name: Some("test".into()),
            ..command(&["make", "test"])
        };
        let spec = from_flags(&args).unwrap();
        let expected = json!({
            "repository": {"url": "/", "ref": "main", "deploy_key": "app", "history": "full", "submodules": true},
            "steps": [{"exec": ["make", "test"], "name": "test"}],
            "tags": ["linux"], "priority": "high", "env": {"A": "1"}, "labels": {"team": "core"}, "timeout": "1m30s",
        });
        assert_eq!(spec, expected);
        assert!(shared::spec::parse_single(&spec, None).is_ok());
    }

    #[test]
    fn nothing_to_submit_is_a_mistake() {
        assert!(from_flags(&command(&[])).is_err());
    }

    #[test]
    fn every_job_of_a_batch_has_a_key_of_its_own() {
        let (body, header) = with_keys(json!({"jobs": [{}, {"idempotency_key": "mine"}]}), "k");
        assert_eq!(body, json!({"jobs": [{"idempotency_key": "k-0"}, {"idempotency_key": "mine"}]}));
        assert!(!header);
        assert_eq!(with_keys(json!({"steps": []}), "k"), (json!({"steps": []}), true));
    }
}

//! From JSON to submissions, with every rejected field named.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::grammar;
use super::reader::{Errors, FieldError, Node, Object};
use super::{
    ATTEMPTS_MAX, Action, Backoff, ENTRIES_MAX, JOB_BYTES_MAX, JOBS_MAX, JobSpec, NAME_BYTES_MAX, OnLostContact,
    RUN_BYTES_MAX, Retry, SECRET_BYTES_MIN, STEPS_MAX, Step, Submission, VALUE_BYTES_MAX,
};
use crate::secret::{Secret, Secrets};
use crate::time::Period;
use repository::repository;

mod repository;

/// The most arguments of an `exec`.
const ARGUMENTS_MAX: usize = 4096;
/// The most kinds of failure in `retry.on`.
const RETRY_ON_MAX: usize = 64;

const TIMEOUT_DEFAULT: Period = Period::from_secs(60 * 60);
const GRACE_DEFAULT: Period = Period::from_secs(10);
const QUEUE_TIMEOUT_DEFAULT: Period = Period::from_secs(24 * 60 * 60);

/// One job from the body of a request.
///
/// # Errors
/// Every field that the contract refuses.
pub fn parse_single(body: &Value, idempotency_key: Option<String>) -> Result<Submission, Vec<FieldError>> {
    let errors = Errors::default();
    let submission = submission(&Node::root(body, "body", &errors), "", false);
    errors.finish(submission).map(|submission| Submission { idempotency_key, ..submission })
}

/// The jobs of a body `{"jobs": […]}`, each with an `idempotency_key` of its own if it wants one.
///
/// # Errors
/// Every field of every job that the contract refuses: a batch is refused whole.
pub fn parse_batch(body: &Value) -> Result<Vec<Submission>, Vec<FieldError>> {
    let errors = Errors::default();
    let jobs = Node::root(body, "body", &errors).object("").and_then(|body| {
        let jobs = body.require("jobs").and_then(|jobs| jobs.array(1, JOBS_MAX));
        body.finish();
        let each = |job: Node| {
            let path = job.path.clone();
            submission(&job, &path, true)
        };
        jobs.map(|jobs| jobs.into_iter().filter_map(each).collect())
    });
    errors.finish(jobs)
}

fn submission(node: &Node, inside: &str, in_batch: bool) -> Option<Submission> {
    let text = serde_json::to_vec(node.value).ok()?;
    if text.len() > JOB_BYTES_MAX {
        node.refuse(format_args!("must have at most {JOB_BYTES_MAX} bytes of JSON, not {}", text.len()));
        return None;
    }
    let job = node.object(inside)?;
    let key = if in_batch { job.get("idempotency_key") } else { None };
    let secrets = secrets(&job);
    let spec = spec(&job);
    job.finish();
    Some(Submission {
        spec: spec?,
        secrets,
        idempotency_key: key.and_then(|key| key.text(NAME_BYTES_MAX)).map(str::to_owned),
        hash: hash(node.value),
    })
}

/// Reads every field before it gives up on one, so that the answer names all that is wrong.
fn spec(job: &Object) -> Option<JobSpec> {
    let repository = optional(job.get("repository"), repository);
    let steps = job.require("steps").and_then(|node| steps(&node));
    let tags = job.get("tags").map_or_else(Vec::new, |node| tags(&node));
    let priority = optional(job.get("priority"), Node::parsed);
    let env = job.get("env").map_or_else(BTreeMap::new, |node| environment(&node));
    let timeout = positive(job, "timeout", TIMEOUT_DEFAULT);
    let grace = job.get("grace").map_or(Some(GRACE_DEFAULT), |node| node.parsed());
    let queue_timeout = positive(job, "queue_timeout", QUEUE_TIMEOUT_DEFAULT);
    let run_at = optional(job.get("run_at"), Node::parsed);
    let retry = job.get("retry").map_or_else(|| Some(Retry::default()), |node| retry(&node));
    let on_lost_contact = job.get("on_lost_contact").map_or(Some(OnLostContact::Run), |node| on_lost_contact(&node));
    let labels = job.get("labels").map_or_else(BTreeMap::new, |node| labels(&node));
    Some(JobSpec {
        repository: repository.ok()?,
        steps: steps?,
        tags,
        priority: priority.ok()?.unwrap_or_default(),
        env,
        timeout: timeout?,
        grace: grace?,
        queue_timeout: queue_timeout?,
        run_at: run_at.ok()?,
        retry: retry?,
        on_lost_contact: on_lost_contact?,
        labels,
    })
}

/// A field was refused, which is noted already.
struct Refused;

/// An optional field, none where it is left out.
fn optional<'a, T>(node: Option<Node<'a>>, read: impl FnOnce(&Node<'a>) -> Option<T>) -> Result<Option<T>, Refused> {
    node.map(|node| read(&node).ok_or(Refused)).transpose()
}

fn steps(node: &Node) -> Option<Vec<Step>> {
    let nodes = node.array(1, STEPS_MAX)?;
    let count = nodes.len();
    let steps: Vec<Step> = nodes.iter().filter_map(step).collect();
    (steps.len() == count).then_some(steps)
}

fn step(node: &Node) -> Option<Step> {
    let fields = node.nested()?;
    let name = optional(fields.get("name"), |node| node.text(NAME_BYTES_MAX).map(str::to_owned));
    let timeout = optional(fields.get("timeout"), positive_period);
    let (run, exec) = (fields.get("run"), fields.get("exec"));
    fields.finish();
    let action = match (run, exec) {
        (Some(run), None) => run.text(RUN_BYTES_MAX).map(|script| Action::Run(script.to_owned())),
        (None, Some(exec)) => argv(&exec).map(Action::Exec),
        (Some(_), Some(exec)) => {
            exec.refuse("can't stand beside run: give one of the two");
            None
        }
        (None, None) => {
            node.refuse("must have run (a script) or exec (an argv)");
            None
        }
    };
    Some(Step { name: name.ok()?, action: action?, timeout: timeout.ok()? })
}

fn argv(node: &Node) -> Option<Vec<String>> {
    let nodes = node.array(1, ARGUMENTS_MAX)?;
    let (program, arguments) = nodes.split_first()?;
    let program = program.text(RUN_BYTES_MAX);
    let arguments = arguments.iter().filter_map(|argument| argument.text_or_empty(RUN_BYTES_MAX));
    let argv: Vec<String> = program.into_iter().chain(arguments).map(str::to_owned).collect();
    (argv.len() == nodes.len()).then_some(argv)
}

fn tags(node: &Node) -> Vec<String> {
    let nodes = node.array(0, ENTRIES_MAX).unwrap_or_default();
    let mut tags: Vec<String> =
        nodes.iter().filter_map(|tag| checked(tag, NAME_BYTES_MAX, grammar::tag_fault)).collect();
    tags.sort();
    tags.dedup();
    tags
}

fn environment(node: &Node) -> BTreeMap<String, String> {
    map(node, |name, value| {
        if let Some(fault) = grammar::env_name_fault(name) {
            value.refuse(fault);
        }
        value.text_or_empty(VALUE_BYTES_MAX).map(str::to_owned)
    })
}

fn labels(node: &Node) -> BTreeMap<String, String> {
    map(node, |key, value| {
        if key.is_empty() {
            value.refuse("must have a key");
        }
        value.text_or_empty(VALUE_BYTES_MAX).map(str::to_owned)
    })
}

fn secrets(job: &Object) -> Secrets {
    let env = job.get("env").and_then(|env| env.value.as_object());
    let Some(node) = job.get("secrets") else { return Secrets::default() };
    Secrets(map(&node, |name, value| {
        let text = value.text_or_empty(VALUE_BYTES_MAX)?;
        if let Some(fault) = grammar::env_name_fault(name) {
            value.refuse(fault);
        } else if env.is_some_and(|env| env.contains_key(name)) {
            value.refuse("stands in env as well: give it in one of the two");
        } else if text.len() < SECRET_BYTES_MIN {
            let why = "shorter values can't be masked in the log";
            value.refuse(format_args!("must have at least {SECRET_BYTES_MIN} bytes: {why}"));
        }
        Some(Secret::new(text.to_owned()))
    }))
}

/// A map whose keys are the submitter's own, each of at most [`NAME_BYTES_MAX`] bytes without NUL.
fn map<T>(node: &Node, read: impl Fn(&str, &Node) -> Option<T>) -> BTreeMap<String, T> {
    let entries = node.nested().map(|fields| fields.entries(ENTRIES_MAX)).unwrap_or_default();
    let entry = |(key, value): (&str, Node)| {
        if let Some(fault) = super::reader::text_fault(key, NAME_BYTES_MAX) {
            value.refuse(format_args!("the key {fault}"));
        }
        Some((key.to_owned(), read(key, &value)?))
    };
    entries.into_iter().filter_map(entry).collect()
}

fn retry(node: &Node) -> Option<Retry> {
    let fields = node.nested()?;
    let default = Retry::default();
    let attempts = fields.get("max_attempts").map_or(Some(default.max_attempts), |n| n.number(1, ATTEMPTS_MAX));
    let on = fields.get("on").map_or(Some(default.on), |on| {
        let kinds = on.array(0, RETRY_ON_MAX)?;
        Some(kinds.iter().filter_map(Node::parsed).collect())
    });
    let backoff = fields.get("backoff").map_or(Some(default.backoff), |backoff| {
        let fields = backoff.nested()?;
        let first = positive(&fields, "first", default.backoff.first);
        let max = positive(&fields, "max", default.backoff.max);
        fields.finish();
        Some(Backoff { first: first?, max: max? })
    });
    fields.finish();
    Some(Retry { max_attempts: attempts?, on: on?, backoff: backoff? })
}

fn on_lost_contact(node: &Node) -> Option<OnLostContact> {
    match node.value.as_str() {
        Some("run") => Some(OnLostContact::Run),
        Some("stop") => Some(OnLostContact::Stop),
        _ => {
            node.refuse("is not one of run, stop");
            None
        }
    }
}

fn positive(fields: &Object, name: &'static str, default: Period) -> Option<Period> {
    fields.get(name).map_or(Some(default), |node| positive_period(&node))
}

fn positive_period(node: &Node) -> Option<Period> {
    let period = node.parsed()?;
    if period == Period::ZERO {
        node.refuse("must be longer than nothing");
        return None;
    }
    Some(period)
}

fn checked(node: &Node, max: usize, fault: impl Fn(&str) -> Option<&'static str>) -> Option<String> {
    let text = node.text(max)?;
    match fault(text) {
        Some(fault) => {
            node.refuse(fault);
            None
        }
        None => Some(text.to_owned()),
    }
}

/// The SHA-256 of a job's JSON without its idempotency key. `serde_json` keeps the fields sorted, so that their order
/// in the request makes no difference.
fn hash(job: &Value) -> [u8; 32] {
    let mut job = job.clone();
    if let Some(fields) = job.as_object_mut() {
        fields.remove("idempotency_key");
    }
    Sha256::digest(job.to_string()).into()
}

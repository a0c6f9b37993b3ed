//! `windlass run`: one job in this process, from submission to its end, and the end's code as ours.
//!
//! Everything is embedded and lives in a directory that is gone afterwards. The job's output comes straight from the
//! worker, uncut; its state comes from the store like everybody's.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::pin;

use anyhow::Context;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

use coordinator::retention::RETENTION_DEFAULT;
use coordinator::store::Filter;
use shared::clock;
use shared::id::JobId;
use shared::job::StateName;
use shared::settings::Settings;
use shared::spec::reader::FieldError;
use shared::spec::{Submission, parse_single};
use shared::telemetry;

use crate::args::RunArgs;
use crate::data_dir::DataDir;
use crate::embedded::Embedded;
use crate::exit::{self, Error};
use crate::repo::{self, Repo};
use crate::signals::Signals;
use crate::terminal;
use crate::timeline;

mod code;
mod follow;
mod key;
mod leftovers;
mod screen;

use follow::{End, Followed};
use key::Key;
use screen::Screen;

/// Pieces of output that wait to be written; the job waits when there are more.
const TAP_PIECES_MAX: usize = 64;
/// The most jobs of one state that are ended in a directory that is kept; one `run` leaves one.
const LEFT_JOBS_MAX: u32 = 100;
/// The most characters of the command that are shown as what runs.
const LABEL_CHARS_MAX: usize = 80;
/// What is said when nobody waits for the job's end any more, and what when it doesn't come.
const GIVEN_UP: &str = "giving up: the job ends with this process, and its end is not noted anywhere";
const OVERDUE: &str = "its timeout passed, and its end can't be stored (is the disk full?): it ends with this process";
/// The label by which the jobs of `run` are known in a directory that is kept.
const LABEL: &str = "windlass.run";

/// Runs the job, and returns its code.
///
/// # Errors
/// When no command could be run at all.
pub fn run(args: RunArgs, settings: &Settings) -> Result<u8, Error> {
    let log = args.log.clone().or_else(|| settings.text("WINDLASS_LOG"));
    telemetry::start(log.as_deref(), "error");
    let told = args.data_dir.clone().or_else(|| settings.text("WINDLASS_DATA_DIR").map(PathBuf::from));
    let key = args.deploy_key.as_deref();
    let key = key.map(|given| Key::find(given, args.known_hosts.as_deref(), told.is_some())).transpose()?;
    let submission = submission(args, key.as_ref())?;
    // The directory outlives the parts that work in it, and the runtime that they run on.
    let place = Place::take(told)?;
    let dir = DataDir::hold(place.path())?;
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    let done = runtime.block_on(one_job(dir, place.is_kept(), key, submission));
    // A thread that still waits for a terminal must not hold up the end.
    runtime.shutdown_background();
    place.leave();
    done
}

/// Where the job and its log are.
enum Place {
    Own(TempDir),
    Kept(PathBuf),
}

impl Place {
    fn take(told: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(path) = told {
            return Ok(Self::Kept(path));
        }
        leftovers::sweep(&std::env::temp_dir());
        let made =
            tempfile::Builder::new().prefix(leftovers::PREFIX).permissions(PermissionsExt::from_mode(0o700)).tempdir();
        Ok(Self::Own(made.context("making a directory for the job")?))
    }

    fn path(&self) -> &std::path::Path {
        match self {
            Self::Own(dir) => dir.path(),
            Self::Kept(path) => path,
        }
    }

    fn is_kept(&self) -> bool {
        matches!(self, Self::Kept(_))
    }

    /// Removes what is the job's own.
    fn leave(self) {
        if let Self::Own(dir) = self {
            let path = dir.path().to_owned();
            if let Err(error) = dir.close() {
                terminal::say(&format!("{} is left behind: {error}", path.display()));
            }
        }
    }
}

/// The job that the arguments describe.
fn submission(args: RunArgs, key: Option<&Key>) -> Result<Submission, Error> {
    let mut spec = json!({"steps": [{"exec": args.command}], "labels": {LABEL: "1"}});
    let mut set = |field: &str, value: Value| spec.as_object_mut().map(|spec| spec.insert(field.to_owned(), value));
    if let Some(text) = &args.repo {
        let repo = Repo::find(text).map_err(|why| Error::failed(format_args!("--repo: {why}")))?;
        match &repo {
            Repo::Local(path) => tell_uncommitted(path, args.reference.as_deref()),
            Repo::Remote(url) if repo::shown(url) != *url => {
                return Err(Error::failed("--repo: a URL must hold no password"));
            }
            Repo::Remote(_) => {}
        }
        let fields = [
            ("url", Some(repo.url().to_owned())),
            ("ref", args.reference),
            ("deploy_key", key.map(|key| key.name().to_owned())),
        ];
        let given = |(field, value): (&str, Option<String>)| Some((field.to_owned(), Value::String(value?)));
        set("repository", fields.into_iter().filter_map(given).collect());
    }
    set("env", args.env.into_iter().map(|(name, value)| (name, Value::String(value))).collect::<Map<_, _>>().into());
    for (field, period) in [("timeout", args.timeout), ("grace", args.grace)] {
        period.map(|period| set(field, period.to_string().into()));
    }
    // The key makes it safe to submit once more when the first answer was lost.
    parse_single(&spec, Some(clock::random_uuid().to_string()))
        .map_err(|errors| Error::Failed(errors.iter().map(refusal).collect()))
}

/// A refused field, by the flag that it came from where somebody needs to know.
fn refusal(error: &FieldError) -> String {
    match (error.field.as_str(), error.detail.contains("deploy_key")) {
        ("repository.url", true) => "--repo: SSH needs a deploy key: give one with --deploy-key".to_owned(),
        (field, _) => format!("{field}: {}", error.detail),
    }
}

fn tell_uncommitted(repo: &str, reference: Option<&str>) {
    let Some(count @ 1..) = repo::uncommitted(repo) else { return };
    let (changes, stay) = if count == 1 { ("change", "stays") } else { ("changes", "stay") };
    let what = reference.unwrap_or("HEAD");
    terminal::say(&format!("{count} uncommitted {changes} in {repo} {stay} out: the commit at {what} is built"));
}

async fn one_job(dir: DataDir, kept: bool, key: Option<Key>, submission: Submission) -> Result<u8, Error> {
    let mut signals = Signals::listen()?;
    let label = label(&submission);
    let within = submission.spec.timeout.plus(submission.spec.grace).duration();
    let (tap, output) = mpsc::channel(TAP_PIECES_MAX);
    let screen = Screen::start(output, key.as_ref().and_then(Key::alias));
    let mut parts = Embedded::open(dir, None, RETENTION_DEFAULT).await?;
    let (begun, interrupted) =
        interruptibly(begin(&mut parts, kept, tap, key.as_ref(), submission), &mut signals, &screen).await;
    let ended = match begun {
        Some(Ok(id)) => {
            let job = Followed { id, label: &label, within, interrupted };
            follow::to_the_end(parts.service(), job, &mut signals, &screen).await
        }
        Some(Err(error)) => Err(error),
        None => Ok(End::GivenUp),
    };
    let abandoned = match ended {
        Ok(End::GivenUp) => Some((GIVEN_UP, exit::CANCELED)),
        Ok(End::Overdue) => Some((OVERDUE, exit::TIMED_OUT)),
        Ok(End::Told { .. }) | Err(_) => None,
    };
    if let Some((why, code)) = abandoned {
        // What can't be told must not keep us: what runs of the job ends with this process.
        terminal::say(why);
        return Ok(code);
    }
    if let Some(key) = &key {
        key.take_away(parts.service()).await;
    }
    tokio::select! {
        () = parts.stop() => {}
        () = signals.next() => terminal::say("ending without having told how the job ended"),
    }
    // Whoever reads us may take long; a signal leaves what is still unread.
    let written = tokio::select! {
        written = screen.finish() => written,
        () = signals.next() => Ok(()),
    };
    let End::Told { event, timeline } = ended? else { return Err(Error::failed("the job's end is unknown")) };
    let words = timeline::words(&event);
    terminal::say(&key.as_ref().and_then(Key::alias).map_or_else(|| words.clone(), |alias| alias.plain(&words)));
    terminal::say(&timeline.line());
    written.map_err(|error| terminal::output_error(&error))?;
    Ok(code::of(&event.kind))
}

/// Awaits `work`, and returns what it came to and whether there was a signal meanwhile; none after a second signal.
async fn interruptibly<T>(work: impl Future<Output = T>, signals: &mut Signals, screen: &Screen) -> (Option<T>, bool) {
    let mut work = pin!(work);
    tokio::select! {
        done = &mut work => return (Some(done), false),
        () = signals.next() => screen.line("canceling; Ctrl-C again gives up"),
    }
    tokio::select! {
        done = &mut work => (Some(done), true),
        () = signals.next() => (None, true),
    }
}

/// Starts the worker and submits the job.
async fn begin(
    parts: &mut Embedded,
    kept: bool,
    tap: worker::Tap,
    key: Option<&Key>,
    submission: Submission,
) -> Result<JobId, Error> {
    if kept {
        clear(parts).await?;
        key::clear(parts.service()).await?;
    }
    if let Some(key) = key {
        key.bring(parts.service(), parts.dir().path()).await?;
    }
    let data_dir = parts.dir().path().to_owned();
    let base_env = std::env::vars_os().collect();
    let config = worker::Config { base_env, tap: Some(tap), ..worker::Config::new(data_dir, 1) };
    parts.work(config).await?;
    follow::submit(parts.service(), submission).await
}

/// Ends what an earlier `run` left in a directory that is kept: nobody waits for it. Jobs of `dev` are not ours to end or
/// to run.
async fn clear(parts: &Embedded) -> Result<(), Error> {
    for state in StateName::ALL.into_iter().filter(|state| !state.is_terminal() && *state != StateName::Canceling) {
        let filter = Filter { state: Some(state), ..Filter::default() };
        for job in follow::patiently(|| parts.service().jobs(&filter, None, LEFT_JOBS_MAX)).await? {
            if !job.spec.labels.contains_key(LABEL) {
                let dir = parts.dir().path().display();
                return Err(Error::failed(format_args!(
                    "{dir} holds unfinished jobs: let `windlass dev --data-dir {dir}` end them, or name another directory"
                )));
            }
            follow::cancel(parts.service(), job.id, "its `windlass run` was interrupted", true).await?;
        }
    }
    Ok(())
}

/// The command as it was typed, for the spinner.
fn label(submission: &Submission) -> String {
    let argv: Vec<String> = submission.spec.steps.first().map(|step| step.action.argv()).unwrap_or_default();
    argv.join(" ").chars().take(LABEL_CHARS_MAX).collect()
}

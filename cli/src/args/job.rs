//! The words of `windlass job …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use shared::id::JobId;
use shared::job::StateName;
use shared::spec::Priority;
use shared::time::Period;

use super::api::ApiArgs;

/// `windlass job`.
#[derive(Args)]
pub struct JobArgs {
    #[command(flatten)]
    pub api: ApiArgs,
    #[command(subcommand)]
    pub command: JobCommand,
}

/// What to do with jobs.
#[derive(Subcommand)]
pub enum JobCommand {
    /// Submit a job, or many, and print their ids.
    #[command(after_help = SUBMIT_EXAMPLES)]
    Submit(SubmitArgs),
    /// List jobs, the newest first.
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show a job with its timeline.
    #[command(after_help = "Examples:\n  windlass job show ID\n  windlass job show ID --output json")]
    Show { id: JobId },
    /// Say why a job isn't running, or what it does.
    #[command(
        after_help = "Examples:\n  windlass job explain ID\n  windlass job explain ID --output json   the facts as one JSON document"
    )]
    Explain { id: JobId },
    /// Print a job's output.
    #[command(
        after_help = "Examples:\n  windlass job logs ID\n  windlass job logs -f ID\n  windlass job logs ID --attempt 1\n  windlass job logs -f ID --output json   one JSON document a line, as they come"
    )]
    Logs(LogsArgs),
    /// Cancel jobs, by their ids or by a filter.
    #[command(after_help = CANCEL_EXAMPLES)]
    Cancel(CancelArgs),
    /// Run an ended job once more, as a new job.
    #[command(after_help = "Examples:\n  windlass job retry ID")]
    Retry { id: JobId },
    /// Follow a job's timeline to its end; ends with 0 when it succeeded, otherwise with 1.
    #[command(after_help = "Examples:\n  windlass job watch ID && echo done")]
    Watch { id: JobId },
}

/// `windlass job submit`.
#[derive(Args)]
pub struct SubmitArgs {
    /// A specification in JSON, or `{"jobs": […]}`; `-` reads standard input
    #[arg(conflicts_with_all = ["repo", "reference", "deploy_key", "history", "submodules", "tag", "priority", "env", "label", "timeout", "name", "command"])]
    pub file: Option<PathBuf>,
    /// Repository to check out
    #[arg(long, value_name = "URL-or-path")]
    pub repo: Option<String>,
    /// Branch, tag or commit [default: the repository's HEAD]
    #[arg(long = "ref", value_name = "REF", requires = "repo")]
    pub reference: Option<String>,
    /// Name of the deploy key that opens the repository; it may be registered later
    #[arg(long, value_name = "NAME", requires = "repo")]
    pub deploy_key: Option<String>,
    /// How much history comes along: the commit alone (shallow), or all of it (full) [default: shallow]
    #[arg(long, value_name = "full|shallow", value_parser = ["full", "shallow"], requires = "repo", hide_possible_values = true)]
    pub history: Option<String>,
    /// Check submodules out as well, and theirs
    #[arg(long, requires = "repo")]
    pub submodules: bool,
    /// A tag that the worker must have; repeatable
    #[arg(long, value_name = "T")]
    pub tag: Vec<String>,
    /// low, normal, high or urgent
    #[arg(long)]
    pub priority: Option<Priority>,
    /// Environment of the command; repeatable
    #[arg(long, value_name = "K=V", value_parser = pair)]
    pub env: Vec<(String, String)>,
    /// A label to find the job by; repeatable
    #[arg(long, value_name = "K=V", value_parser = pair)]
    pub label: Vec<(String, String)>,
    /// How long one attempt may take [default: 1h]
    #[arg(long, value_name = "D")]
    pub timeout: Option<Period>,
    /// What the step is called
    #[arg(long)]
    pub name: Option<String>,
    /// Wait for the end; then the code is 0 only if every job succeeded
    #[arg(long)]
    pub wait: bool,
    /// The command and its arguments, run without a shell
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Which jobs a list or a cancel is about; each condition that is given must hold.
#[derive(Debug, Clone, Default, Args)]
pub struct FilterArgs {
    /// Only jobs in that state
    #[arg(long)]
    pub state: Option<StateName>,
    /// Only jobs with that tag
    #[arg(long)]
    pub tag: Option<String>,
    /// Only jobs of that repository, as it was submitted
    #[arg(long, value_name = "URL")]
    pub repository: Option<String>,
    /// Only jobs with that label
    #[arg(long, value_name = "K[=V]")]
    pub label: Option<String>,
}

/// `windlass job list`.
#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub filter: FilterArgs,
    /// The most jobs to list
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// `windlass job logs`.
#[derive(Args)]
pub struct LogsArgs {
    pub id: JobId,
    /// Go on until the log is complete
    #[arg(short, long)]
    pub follow: bool,
    /// Only the output of that attempt
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub attempt: Option<u32>,
}

/// `windlass job cancel`.
#[derive(Args)]
pub struct CancelArgs {
    #[arg(value_name = "ID")]
    pub ids: Vec<JobId>,
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Why, for the timeline
    #[arg(long)]
    pub reason: Option<String>,
    /// Kill at once, without a grace
    #[arg(long)]
    pub force: bool,
    /// From SIGTERM to SIGKILL, in place of the job's own
    #[arg(long, value_name = "D", conflicts_with = "force")]
    pub grace: Option<Period>,
}

impl FilterArgs {
    /// The conditions that are given, by the names that the API gives them.
    pub fn conditions(&self) -> Vec<(&'static str, String)> {
        let all = [
            ("state", self.state.map(|state| state.to_string())),
            ("tag", self.tag.clone()),
            ("repository", self.repository.clone()),
            ("label", self.label.clone()),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

/// Reads `KEY=VALUE`; the value may be empty and may hold further `=`.
pub fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE"),
    }
}

pub const EXAMPLES: &str = "\
Examples:
  windlass job submit --repo /srv/app.git --ref main -- make test
  windlass job list --state running
  windlass job cancel ID --reason 'wrong branch'

Settings: WINDLASS_URL (default: where `windlass dev` listens), WINDLASS_TOKEN or WINDLASS_TOKEN_FILE.";

const SUBMIT_EXAMPLES: &str = "\
Examples:
  windlass job submit job.json
  echo '{\"steps\": [{\"run\": \"make test\"}]}' | windlass job submit - --wait
  windlass job submit --repo git@git.example.org:app.git --deploy-key app -- make test
  windlass job submit --repo . --tag linux --label team=core --timeout 10m -- make test";

const LIST_EXAMPLES: &str = "\
Examples:
  windlass job list
  windlass job list --state failed --label team=core --limit 1000
  windlass job list --output json";

const CANCEL_EXAMPLES: &str = "\
Examples:
  windlass job cancel ID ID --reason 'wrong branch'
  windlass job cancel ID --force
  windlass job cancel --state queued --label team=core";

#[cfg(test)]
mod tests {
    use super::{FilterArgs, pair};

    #[test]
    fn a_pair_keeps_everything_after_its_first_equals_sign() {
        assert_eq!(pair("A=b=c"), Ok(("A".into(), "b=c".into())));
        assert_eq!(pair("A="), Ok(("A".into(), String::new())));
        assert!(pair("A").is_err() && pair("=b").is_err());
    }

    #[test]
    fn only_conditions_that_are_given_reach_the_api() {
        assert!(FilterArgs::default().conditions().is_empty());
        let filter = FilterArgs { tag: Some("linux".into()), label: Some("team=core".into()), ..FilterArgs::default() };
        assert_eq!(filter.conditions(), [("tag", "linux".to_owned()), ("label", "team=core".to_owned())]);
    }
}

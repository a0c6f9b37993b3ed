//! The description of the API, made from its routes and types.
//!
//! Bodies are read by `shared::spec`, which names every wrong field and so is no derived decoder; what they hold is
//! written down here for the description alone, and a test compares the two.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use shared::job::StateName;
use shared::spec::{Backoff, History, KeyBackoff, OnLostContact, OnMissing, Priority, Step};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};

use super::jobs::Jobs;
use super::{audit, cancel, deploy_keys, events, explain, jobs, logs, mass_cancel, tokens, workers};

#[derive(OpenApi)]
#[openapi(
    info(title = "Windlass", description = "Coordinates build and deploy jobs."),
    paths(
        jobs::submit, jobs::list, jobs::show, jobs::retry, events::show, explain::show, logs::show, cancel::one, mass_cancel::by_filter,
        workers::list, workers::pause, workers::resume, workers::drain, workers::revoke, tokens::join,
        tokens::create, tokens::list, tokens::revoke, audit::list,
        deploy_keys::put, deploy_keys::show, deploy_keys::list, deploy_keys::remove, deploy_keys::rekey,
        super::health::alive, super::health::ready, describe,
    ),
    security(("bearer" = [])),
    modifiers(&Bearer),
)]
struct Description;

/// Describes the API as OpenAPI 3.1.
#[utoipa::path(
    get, path = "/api/openapi.json", tag = "about",
    responses((status = 200, description = "This description", body = Object))
)]
pub async fn describe() -> HttpResponse {
    HttpResponse::Ok().json(Description::openapi())
}

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
        openapi.components.get_or_insert_default().add_security_scheme("bearer", bearer);
    }
}

/// One job, or many.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "stands for a body in the description; bodies are read field by field")]
pub enum Submissions {
    One(Box<NewJob>),
    Many(NewJobs),
}

/// What a submission answers.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "stands for one of two answers in the description")]
pub enum Submitted {
    One(Box<shared::view::JobView>),
    Many(Jobs),
}

/// Jobs that are submitted together: all of them or none.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands for a body in the description; bodies are read field by field")]
pub struct NewJobs {
    /// 1 to 1,000.
    jobs: Vec<NewJobOfMany>,
}

/// A job of a batch.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands for a body in the description; bodies are read field by field")]
pub struct NewJobOfMany {
    #[serde(flatten)]
    job: NewJob,
    idempotency_key: Option<String>,
}

/// A job to be run. Only `steps` is required.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands for a body in the description; bodies are read field by field")]
pub struct NewJob {
    repository: Option<NewRepository>,
    /// 1 to 100, each with `run` or `exec`.
    steps: Vec<Step>,
    tags: Option<Vec<String>>,
    priority: Option<Priority>,
    env: Option<BTreeMap<String, String>>,
    /// Environment of every step that no answer, event or log shows.
    #[schema(write_only)]
    secrets: Option<BTreeMap<String, String>>,
    #[schema(example = "1h", default = "1h")]
    timeout: Option<String>,
    #[schema(example = "10s", default = "10s")]
    grace: Option<String>,
    #[schema(example = "24h", default = "24h")]
    queue_timeout: Option<String>,
    #[schema(format = DateTime)]
    run_at: Option<String>,
    retry: Option<NewRetry>,
    on_lost_contact: Option<OnLostContact>,
    labels: Option<BTreeMap<String, String>>,
}

/// Where the work tree comes from. Only `url` is required.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands for a body in the description; bodies are read field by field")]
pub struct NewRepository {
    /// `https://` without credentials, `ssh://`, `user@host:path`, `file://` or an absolute path.
    #[schema(example = "git@git.example.org:team/app.git")]
    url: String,
    /// Branch, tag or commit; the repository's HEAD when left out.
    r#ref: Option<String>,
    /// What opens it; a URL of SSH needs one.
    deploy_key: Option<KeyUse>,
    history: Option<History>,
    /// Whether its submodules are checked out as well.
    submodules: Option<bool>,
}

/// The name of a deploy key, or more about it.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "stands for one of two forms in the description")]
pub enum KeyUse {
    Name(String),
    Policy(KeyPolicy),
}

/// The deploy key that a checkout uses, and what to do while it isn't registered. Only `name` is required.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands for a body in the description; bodies are read field by field")]
pub struct KeyPolicy {
    /// The name that it is, or will be, registered under.
    name: String,
    on_missing: Option<OnMissing>,
    /// How long a parked job waits for the key.
    #[schema(example = "10m", default = "10m")]
    wait: Option<String>,
    retry: Option<KeyPolicyRetry>,
    /// Whether the steps may use the key as well, through an ssh-agent.
    in_steps: Option<bool>,
}

/// How often, and after which waits, a deploy key that isn't registered is asked for again.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands for a body in the description; bodies are read field by field")]
pub struct KeyPolicyRetry {
    #[schema(minimum = 1, maximum = 100, default = 5)]
    tries: Option<u32>,
    backoff: Option<KeyBackoff>,
    #[schema(example = "1s", default = "1s")]
    first: Option<String>,
    #[schema(example = "30s", default = "30s")]
    max: Option<String>,
    #[schema(example = "2m", default = "2m")]
    deadline: Option<String>,
}

/// What a deploy key is to be. A new one needs `known_hosts`, and `private_key` or `generate`; of one that is there,
/// whatever is left out stays.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands for a body in the description; bodies are read field by field")]
pub struct NewDeployKey {
    /// In OpenSSH's format, without a passphrase: ed25519, rsa of 2048 bits or more, ecdsa on nistp256 or nistp384. No answer
    /// shows it.
    #[schema(write_only)]
    private_key: Option<String>,
    /// Have an ed25519 pair made; the answer shows its public half.
    generate: Option<bool>,
    /// The host keys that count, as a `known_hosts` file.
    known_hosts: Option<String>,
}

/// When an attempt that failed is followed by another.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands for a body in the description; bodies are read field by field")]
pub struct NewRetry {
    #[schema(minimum = 1, maximum = 100, default = 3)]
    max_attempts: Option<u32>,
    /// `worker_lost`, `checkout_failed`, `step_failed`, `timed_out`, `exit:N`.
    on: Option<Vec<String>>,
    backoff: Option<Backoff>,
}

/// How a job is stopped.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands for a body in the description; bodies are read field by field")]
pub struct CancelOne {
    reason: Option<String>,
    /// Skips the grace.
    force: Option<bool>,
    /// In place of the job's own.
    #[schema(example = "10s")]
    grace: Option<String>,
}

/// Which jobs are stopped.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands for a body in the description; bodies are read field by field")]
pub struct CancelMany {
    filter: CancelFilter,
    reason: Option<String>,
}

/// A token for somebody who speaks to the API.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands for a body in the description; bodies are read field by field")]
pub struct NewApiToken {
    role: shared::role::Role,
    /// What its holder is called in timelines and the audit.
    #[schema(example = "ann")]
    name: String,
    /// How long it counts.
    #[schema(example = "7d", default = "90d")]
    expires: Option<String>,
}

/// A token with which workers enrol.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands for a body in the description; bodies are read field by field")]
pub struct NewJoinToken {
    /// What it is for, in people's words.
    #[schema(example = "ci-hosts", default = "join")]
    name: Option<String>,
    /// How long it counts.
    #[schema(example = "1h", default = "30d")]
    expires: Option<String>,
}

/// Conditions that must all hold; at least one.
#[derive(ToSchema)]
#[expect(dead_code, reason = "stands for a body in the description; bodies are read field by field")]
pub struct CancelFilter {
    state: Option<StateName>,
    tag: Option<String>,
    repository: Option<String>,
    /// A label's key, or its key and value as `key=value`.
    label: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::super::rules::RULES;
    use super::*;
    use serde_json::{Value, json};
    use shared::spec::{parse_batch, parse_single};
    use std::collections::BTreeSet;

    fn description() -> Value {
        serde_json::to_value(Description::openapi()).unwrap()
    }

    fn properties(schema: &str) -> BTreeSet<String> {
        let description = description();
        let fields = &description["components"]["schemas"][schema]["properties"];
        fields.as_object().unwrap_or_else(|| panic!("{schema}: {fields}")).keys().cloned().collect()
    }

    /// The fields that a reader knows, from its complaint about one that it doesn't.
    fn known(errors: &[shared::spec::reader::FieldError], unknown: &str) -> BTreeSet<String> {
        let error = errors.iter().find(|error| error.field == unknown).unwrap();
        let (_, names) = error.detail.split_once("known here: ").unwrap();
        names.split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn the_description_names_the_fields_that_a_submission_may_have() {
        let body = json!({"steps": [{"run": "ls", "x": 1}], "x": 1, "retry": {"x": 1}, "repository": {"url": "/r", "x": 1,
                "deploy_key": {"name": "app", "x": 1, "retry": {"x": 1}}}});
        let errors = parse_single(&body, None).unwrap_err();
        assert_eq!(properties("NewJob"), known(&errors, "x"));
        assert_eq!(properties("NewRetry"), known(&errors, "retry.x"));
        assert_eq!(properties("NewRepository"), known(&errors, "repository.x"));
        assert_eq!(properties("KeyPolicy"), known(&errors, "repository.deploy_key.x"));
        assert_eq!(properties("KeyPolicyRetry"), known(&errors, "repository.deploy_key.retry.x"));

        let errors = parse_batch(&json!({"jobs": [{"x": 1}], "x": 1})).unwrap_err();
        assert_eq!(properties("NewJobs"), known(&errors, "x"));
    }

    #[test]
    fn every_route_is_described_and_asks_for_the_token() {
        let description = description();
        let paths: BTreeSet<&str> = description["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        // What coordinators say to each other is nobody else's business, and the page is for people.
        let is_described = |path: &&str| path.starts_with("/api/") || ["/healthz", "/readyz"].contains(path);
        let expected: BTreeSet<&str> = RULES.iter().map(|rule| rule.path).filter(is_described).collect();
        assert_eq!(paths, expected);
        assert_eq!(description["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
        assert_eq!(description["security"], json!([{"bearer": []}]));
    }

    #[test]
    fn every_type_that_the_description_mentions_is_in_it() {
        let text = description().to_string();
        let schemas = description()["components"]["schemas"].clone();
        for piece in text.split("#/components/schemas/").skip(1) {
            let name = piece.split('"').next().unwrap();
            assert!(schemas.get(name).is_some(), "{name}");
        }
    }
}

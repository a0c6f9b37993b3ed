//! The words of the cluster's own processes: `windlass coordinator`, `windlass worker` and `windlass migrate`.

#![expect(clippy::doc_markdown, reason = "the comments of these types are the help that clap prints")]

use std::path::PathBuf;

use clap::Args;

use shared::time::Period;

/// `windlass coordinator`.
#[derive(Debug, Default, Args)]
pub struct CoordinatorArgs {
    /// Where NATS is [env: WINDLASS_NATS_URL] [default: nats://127.0.0.1:4222]
    #[arg(long, value_name = "URL")]
    pub nats_url: Option<String>,
    /// Where the API listens; port 0 picks a free one [env: WINDLASS_LISTEN] [default: 127.0.0.1:7070]
    #[arg(long, value_name = "A")]
    pub listen: Option<String>,
    /// Where the other coordinators reach this one's API [env: WINDLASS_ADVERTISE_URL] [default: http:// or https:// and where
    /// it listens; this host's name in place of an address like 0.0.0.0]
    #[arg(long, value_name = "URL")]
    pub advertise_url: Option<String>,
    /// Leave the database as it is: `windlass migrate` brings it up to date [env: WINDLASS_NO_MIGRATE=true]
    #[arg(long)]
    pub no_migrate: bool,
    /// The API's certificate, a PEM file; with it the API speaks HTTPS [env: WINDLASS_TLS_CERT_FILE]
    #[arg(long, value_name = "F")]
    pub tls_cert_file: Option<PathBuf>,
    /// The certificate's private key, a PEM file [env: WINDLASS_TLS_KEY_FILE]
    #[arg(long, value_name = "F")]
    pub tls_key_file: Option<PathBuf>,
    /// The authorities whose certificates are trusted, a PEM file [env: WINDLASS_CA_FILE] [default: the public ones]
    #[arg(long, value_name = "F")]
    pub ca_file: Option<PathBuf>,
    /// How long a job is kept after its end, 1d or more [env: WINDLASS_RETENTION] [default: 30d]
    #[arg(long, value_name = "D")]
    pub retention: Option<Period>,
    /// Which log lines to show, like `info` or `coordinator=debug` [env: WINDLASS_LOG] [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// `windlass worker`.
#[derive(Debug, Default, Args)]
pub struct WorkerArgs {
    /// Where NATS is [env: WINDLASS_NATS_URL] [default: nats://127.0.0.1:4222]
    #[arg(long, value_name = "URL")]
    pub nats_url: Option<String>,
    /// Where its identity is kept, and where its jobs run [env: WINDLASS_DATA_DIR] [default: $XDG_STATE_HOME/windlass]
    #[arg(long, value_name = "D")]
    pub data_dir: Option<PathBuf>,
    /// How many jobs run at once [env: WINDLASS_SLOTS] [default: the CPUs]
    #[arg(long, value_name = "N")]
    pub slots: Option<u32>,
    /// A tag of the worker; repeatable [env: WINDLASS_TAG, comma-separated]
    #[arg(long, value_name = "T")]
    pub tag: Vec<String>,
    /// How it looks for a deploy key that isn't registered, unless the job says so: parts of
    /// `tries=5,backoff=exponential,first=1s,max=30s,deadline=2m` [env: WINDLASS_KEY_RETRY]
    #[arg(long, value_name = "P")]
    pub key_retry: Option<String>,
    /// What people shall call it; told when it enrols [env: WINDLASS_NAME] [default: this host's name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The authorities whose certificates are trusted, a PEM file [env: WINDLASS_CA_FILE] [default: the public ones]
    #[arg(long, value_name = "F")]
    pub ca_file: Option<PathBuf>,
    /// Which log lines to show, like `info` or `worker=debug` [env: WINDLASS_LOG] [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

pub const COORDINATOR_EXAMPLES: &str = "\
Examples:
  export WINDLASS_DATABASE_URL=postgres://windlass@127.0.0.1/windlass
  export WINDLASS_MASTER_KEYS=first:$(head -c 32 /dev/urandom | base64)
  export WINDLASS_BOOTSTRAP_TOKEN=$(head -c 32 /dev/urandom | base64)
  windlass coordinator
  windlass coordinator --listen 0.0.0.0:7070 --nats-url nats://nats:4222 --advertise-url http://10.0.0.7:7070

Settings without a flag, since they hold secrets: WINDLASS_DATABASE_URL (postgres://…), WINDLASS_MASTER_KEYS (id:base64 of
32 bytes, comma-separated, the first encrypts; every replica needs the same), WINDLASS_BOOTSTRAP_TOKEN (becomes the first
admin token). Each can be read from the file that its name with _FILE names.

The first SIGTERM or SIGINT hands its shards over and stops, a second one stops at once.";

pub const WORKER_EXAMPLES: &str = "\
Examples:
  WINDLASS_JOIN_TOKEN=$(windlass token join) windlass worker
  windlass worker --nats-url nats://nats:4222 --slots 8 --tag linux --tag docker

It enrols with WINDLASS_JOIN_TOKEN (or the file that WINDLASS_JOIN_TOKEN_FILE names); once its data directory holds an identity, the
join token is ignored.

The first SIGTERM or SIGINT lets what runs finish and takes nothing new, a second one cancels what runs, a third one ends
it at once.";

pub const MIGRATE_EXAMPLES: &str = "\
Examples:
  WINDLASS_DATABASE_URL=postgres://windlass@127.0.0.1/windlass windlass migrate

WINDLASS_DATABASE_URL (or the file that WINDLASS_DATABASE_URL_FILE names) says where the database is. `windlass coordinator` does the
same at its start unless told not to.";

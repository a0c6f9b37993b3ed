//! `windlass worker`: one worker of a cluster, on NATS, until it is drained or stopped.
//!
//! The first signal drains it: what runs goes on to its end, nothing new is taken. The second cancels what runs, with its
//! grace. The third ends it at once: the keepers of what runs end that, and the next start tells what became of it.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use shared::bus::Bus;
use shared::bus::nats::{NatsBus, NatsOptions, Role};
use shared::secret::Secret;
use shared::settings::Settings;
use shared::spec::KeyRetry;
use shared::telemetry;
use shared::tls::Authorities;
use worker::Worker;

use super::nats_url;
use crate::args::LOG_DEFAULT;
use crate::args::cluster::WorkerArgs;
use crate::capacity::Capacity;
use crate::data_dir::DataDir;
use crate::embedded::{WORKER_STOP_MAX, within};
use crate::exit::{self, Error};
use crate::key_retry;
use crate::listen::host_name;
use crate::signals::Signals;
use crate::trust;

/// Runs until it is drained or stopped, and returns the code to end with.
///
/// # Errors
/// When a setting can't be used, it doesn't start, or it dies.
pub fn worker(args: &WorkerArgs, settings: &Settings) -> Result<u8, Error> {
    let log = args.log.clone().or_else(|| settings.text("WINDLASS_LOG"));
    telemetry::start(log.as_deref(), LOG_DEFAULT);
    let plan = Plan::read(args, settings)?;
    let dir = DataDir::hold(&args.data_dir.clone().map_or_else(|| settings.data_dir(), Ok)?)?;
    known(plan.join.as_ref(), dir.path())?;
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    let done = runtime.block_on(work(&dir, plan));
    // A part that was left behind must not hold up the end.
    runtime.shutdown_background();
    Ok(done?)
}

/// Whether a worker with these settings can be known to its cluster.
///
/// # Errors
/// When it has neither an identity nor a token to get one.
pub fn joined(settings: &Settings) -> Result<(), Error> {
    known(settings.secret("WINDLASS_JOIN_TOKEN")?.map(Secret::new).as_ref(), &settings.data_dir()?)
}

fn known(join: Option<&Secret>, data_dir: &Path) -> Result<(), Error> {
    if join.is_some() || worker::is_enrolled(data_dir) {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "WINDLASS_JOIN_TOKEN: is not set, and {} holds no identity yet: `windlass token join` makes a token",
        data_dir.display()
    )))
}

/// What `worker` was told.
struct Plan {
    nats: String,
    /// Whose certificate NATS may have.
    authorities: Option<Authorities>,
    capacity: Capacity,
    key_retry: KeyRetry,
    name: String,
    join: Option<Secret>,
}

impl Plan {
    fn read(args: &WorkerArgs, settings: &Settings) -> Result<Self, Error> {
        let name = args.name.clone().or_else(|| settings.text("WINDLASS_NAME"));
        Ok(Self {
            nats: nats_url(args.nats_url.as_deref(), settings),
            authorities: trust::authorities(args.ca_file.as_deref(), settings)?,
            capacity: Capacity::read(args.slots, &args.tag, settings)?,
            key_retry: key_retry::read(args.key_retry.as_deref(), settings)?,
            name: name.unwrap_or_else(host_name),
            join: settings.secret("WINDLASS_JOIN_TOKEN")?.map(Secret::new),
        })
    }
}

async fn work(dir: &DataDir, plan: Plan) -> anyhow::Result<u8> {
    let mut signals = Signals::listen()?;
    let starting = async {
        let nats = NatsOptions { authorities: plan.authorities, ..NatsOptions::new(plan.nats, Role::Worker) };
        let bus = NatsBus::connect(nats).await.context("connecting to NATS")?;
        let bus: Arc<dyn Bus> = Arc::new(bus);
        let own = worker::Config::new(dir.path().to_owned(), plan.capacity.slots);
        let (tags, key_retry) = (plan.capacity.tags, plan.key_retry);
        let config = worker::Config { tags, key_retry, name: plan.name, join: plan.join, ..own };
        worker::start(config, bus).await.context("starting the worker")
    };
    let worker = tokio::select! {
        started = starting => started?,
        () = signals.next() => {
            tracing::info!("stopped before it had started");
            return Ok(0);
        }
    };
    tracing::info!("the worker has started");
    let drained = until_drained(&worker, &mut signals).await;
    tokio::select! {
        () = within(WORKER_STOP_MAX, "the worker", worker.stop()) => tracing::info!("stopped"),
        () = signals.next() => {
            tracing::warn!("ending at once: the next start tells what became of what ran");
            return Ok(exit::CANCELED);
        }
    }
    drained.map(|()| 0).context("the worker can't go on")
}

/// Returns when nothing runs any more and nothing will, or when what still runs is to be canceled.
async fn until_drained(worker: &Worker, signals: &mut Signals) -> Result<(), worker::Error> {
    tokio::select! {
        drained = worker.drained() => return drained,
        () = signals.next() => {}
    }
    tracing::info!(
        "draining: what runs goes on to its end, and nothing new is taken; a second signal cancels what runs"
    );
    worker.drain();
    tokio::select! {
        drained = worker.drained() => drained,
        () = signals.next() => {
            tracing::warn!("canceling what runs; a third signal ends it at once");
            Ok(())
        }
    }
}

//! `windlass dev`: coordinator, worker and API in one process, until a signal stops it. A second signal stops it at
//! once; what that leaves is put right at the next start.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::Context;
use shared::settings::Settings;
use shared::spec::KeyRetry;
use shared::telemetry;
use shared::time::Period;

use crate::args::{DevArgs, LOG_DEFAULT};
use crate::capacity::Capacity;
use crate::data_dir::DataDir;
use crate::database;
use crate::embedded::Embedded;
use crate::exit::{self, Error};
use crate::key_retry;
use crate::listen::{LISTEN_DEFAULT, listen, reachable};
use crate::retention;
use crate::signals::Signals;

/// Runs until a signal, and returns the code to end with.
///
/// # Errors
/// When a setting can't be used, or a part doesn't start.
pub fn dev(args: &DevArgs, settings: &Settings) -> Result<u8, Error> {
    let log = args.log.clone().or_else(|| settings.text("WINDLASS_LOG"));
    telemetry::start(log.as_deref(), LOG_DEFAULT);
    let plan = Plan::read(args, settings)?;
    let dir = DataDir::hold(&args.data_dir.clone().map_or_else(|| settings.data_dir(), Ok)?)?;
    let listener = listen(&plan.listen)?;
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    let done = runtime.block_on(serve(dir, listener, plan));
    // A part that was left behind must not hold up the end.
    runtime.shutdown_background();
    Ok(done?)
}

/// What `dev` was told.
struct Plan {
    listen: String,
    capacity: Capacity,
    key_retry: KeyRetry,
    retention: Period,
    /// Where the database is, if not in the data directory.
    database: Option<PathBuf>,
}

impl Plan {
    fn read(args: &DevArgs, settings: &Settings) -> Result<Self, Error> {
        let listen = args.listen.clone().or_else(|| settings.text("WINDLASS_LISTEN"));
        Ok(Self {
            listen: listen.unwrap_or_else(|| LISTEN_DEFAULT.to_owned()),
            capacity: Capacity::read(args.slots, &args.tag, settings)?,
            key_retry: key_retry::read(args.key_retry.as_deref(), settings)?,
            retention: retention::read(args.retention, settings)?,
            database: database::of_dev(settings)?,
        })
    }
}

async fn serve(dir: DataDir, listener: TcpListener, plan: Plan) -> anyhow::Result<u8> {
    let mut signals = Signals::listen()?;
    let address = listener.local_addr().context("asking for the listener's address")?;
    let mut parts = Embedded::open(dir, plan.database.as_deref(), plan.retention).await?;
    let started = start(&mut parts, listener, address, plan.capacity, plan.key_retry).await;
    if started.is_ok() {
        tracing::info!("listening on http://{address}");
        signals.next().await;
        tracing::info!("stopping; a second signal stops at once");
    }
    parts.dir().withdraw();
    tokio::select! {
        () = parts.stop() => tracing::info!("stopped"),
        () = signals.next() => {
            tracing::warn!("stopping at once: jobs that ran are run again at the next start");
            return Ok(exit::CANCELED);
        }
    }
    started.map(|()| 0)
}

async fn start(
    parts: &mut Embedded,
    listener: TcpListener,
    address: SocketAddr,
    Capacity { slots, tags }: Capacity,
    key_retry: KeyRetry,
) -> anyhow::Result<()> {
    let data_dir = parts.dir().path().to_owned();
    parts.work(worker::Config { tags, key_retry, ..worker::Config::new(data_dir, slots) }).await?;
    parts.serve(listener)?;
    parts.dir().announce(&format!("http://{}", reachable(address)))
}

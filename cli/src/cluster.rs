//! The cluster's own processes: `windlass coordinator`, `windlass worker`, and `windlass migrate`, which does one thing
//! before them.

use shared::settings::Settings;
use shared::telemetry;

use crate::args::LOG_DEFAULT;
use crate::database;
use crate::exit::Error;
use crate::terminal;

pub mod coordinator;
pub mod worker;

/// Where NATS is unless told otherwise.
const NATS_DEFAULT: &str = "nats://127.0.0.1:4222";

/// Brings the cluster's database up to date.
///
/// # Errors
/// When it isn't named, can't be reached, or isn't one of ours.
pub fn migrate(settings: &Settings) -> Result<u8, Error> {
    // Waiting for the database is said.
    telemetry::start(settings.text("WINDLASS_LOG").as_deref(), LOG_DEFAULT);
    let url = database::of_cluster("migrate", settings)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Error::failed(format_args!("starting: {error}")))?;
    runtime.block_on(self::coordinator::migrate(&url))?;
    terminal::say("the database is up to date");
    Ok(0)
}

/// Where NATS is: one URL, or several with commas between them.
fn nats_url(flag: Option<&str>, settings: &Settings) -> String {
    let told = flag.map(str::to_owned).or_else(|| settings.text("WINDLASS_NATS_URL"));
    told.unwrap_or_else(|| NATS_DEFAULT.to_owned())
}

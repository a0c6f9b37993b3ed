//! `windlass coordinator`: one coordinator of a cluster, on Postgres and NATS, with its API, until a signal stops it.
//!
//! Start: listen (so that the port is known), database, NATS, coordinator, first token, API. Stop, the other way round:
//! the API refuses what is new, then the coordinator hands its shards over. A second signal stops it at once: its lease
//! ends by itself then, and the others take its shards over.

use std::fmt::Display;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use coordinator::api::{self, ApiServer, Tokens, Transport};
use coordinator::service::Error as ServiceError;
use coordinator::store::measured::{Measured, Meters, Reading};
use coordinator::store::postgres::PostgresStore;
use coordinator::store::{Error as StoreError, Store};
use coordinator::vault::MasterKeys;
use coordinator::{Config, Coordinator, StartError};
use shared::bus::Bus;
use shared::bus::nats::{NatsBus, NatsOptions, Role};
use shared::secret::Secret;
use shared::settings::Settings;
use shared::telemetry;
use shared::time::Period;

use super::nats_url;
use crate::args::LOG_DEFAULT;
use crate::args::cluster::CoordinatorArgs;
use crate::database;
use crate::embedded::{API_STOP_MAX, COORDINATOR_STOP_MAX, within};
use crate::exit::{self, Error};
use crate::listen::{LISTEN_DEFAULT, advertise_url, advertised, host_name, listen};
use crate::retention;
use crate::signals::Signals;
use crate::trust;

/// Who holds the first token, in the events that follow from its use.
const FIRST_ADMIN: &str = "admin";
/// How many bytes of a first token can't be guessed, where they are random.
const BOOTSTRAP_BYTES_ADVISED: usize = 16;
/// How often the database is asked for at the start, and how long a try that failed is apart from the next.
const DATABASE_TRIES_MAX: u32 = 60;
const DATABASE_WAIT: Duration = Duration::from_secs(1);

/// Runs until a signal, and returns the code to end with.
///
/// # Errors
/// When a setting can't be used, or a part doesn't start.
pub fn coordinator(args: &CoordinatorArgs, settings: &Settings) -> Result<u8, Error> {
    let log = args.log.clone().or_else(|| settings.text("WINDLASS_LOG"));
    telemetry::start(log.as_deref(), LOG_DEFAULT);
    let plan = Plan::read(args, settings)?;
    let listener = listen(&plan.listen)?;
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    let done = runtime.block_on(serve(listener, plan));
    // A part that was left behind must not hold up the end.
    runtime.shutdown_background();
    Ok(done?)
}

/// Brings the database up to date, once it can be reached.
pub async fn migrate(url: &Secret) -> anyhow::Result<()> {
    patiently(StoreError::may_pass, || PostgresStore::migrate(url)).await.context("bringing the database up to date")
}

/// What `coordinator` was told.
#[derive(Debug)]
struct Plan {
    listen: String,
    advertise: Option<String>,
    nats: String,
    database: Secret,
    keys: MasterKeys,
    bootstrap: Option<Secret>,
    migrate: bool,
    transport: Transport,
    retention: Period,
}

impl Plan {
    fn scheme(&self) -> &'static str {
        if self.transport.certificate.is_some() { "https" } else { "http" }
    }
}

impl Plan {
    fn read(args: &CoordinatorArgs, settings: &Settings) -> Result<Self, Error> {
        let listen = args.listen.clone().or_else(|| settings.text("WINDLASS_LISTEN"));
        let certificate = trust::certificate(args.tls_cert_file.as_deref(), args.tls_key_file.as_deref(), settings)?;
        let authorities = trust::authorities(args.ca_file.as_deref(), settings)?;
        let no_migrate = settings.parsed::<bool>("WINDLASS_NO_MIGRATE")?.unwrap_or(false);
        Ok(Self {
            listen: listen.unwrap_or_else(|| LISTEN_DEFAULT.to_owned()),
            advertise: advertise(args.advertise_url.clone(), certificate.is_some(), settings)?,
            nats: nats_url(args.nats_url.as_deref(), settings),
            database: database::of_cluster("coordinator", settings)?,
            keys: master_keys(settings)?,
            bootstrap: bootstrap(settings)?,
            migrate: !(args.no_migrate || no_migrate),
            transport: Transport { certificate, authorities },
            retention: retention::read(args.retention, settings)?,
        })
    }
}

/// What keeps a coordinator from starting with these settings, each by itself.
pub fn faults(settings: &Settings) -> Vec<Result<(), Error>> {
    vec![
        database::of_cluster("coordinator", settings).map(drop),
        trust::certificate(None, None, settings).and_then(|own| advertise(None, own.is_some(), settings)).map(drop),
        trust::authorities(None, settings).map(drop),
        master_keys(settings).map(drop),
        bootstrap(settings).map(drop),
    ]
}

/// Where others are told to find it, if anybody says.
fn advertise(flag: Option<String>, secure: bool, settings: &Settings) -> Result<Option<String>, Error> {
    let Some(text) = flag.or_else(|| settings.text("WINDLASS_ADVERTISE_URL")) else { return Ok(None) };
    let url = advertise_url(&text)?;
    if secure && !url.starts_with("https://") {
        let why = "must begin with https://, since WINDLASS_TLS_CERT_FILE is set";
        return Err(Error::Usage(format!("WINDLASS_ADVERTISE_URL (--advertise-url): {why}")));
    }
    Ok(Some(url))
}

fn master_keys(settings: &Settings) -> Result<MasterKeys, Error> {
    const NAME: &str = "WINDLASS_MASTER_KEYS";
    let text = settings.secret(NAME)?.ok_or_else(|| {
        Error::Usage(format!(
            "{NAME}: is not set: coordinator encrypts the jobs' secrets with it, the same at each replica: \
             id:base64 of 32 bytes (make one: echo first:$(head -c 32 /dev/urandom | base64))"
        ))
    })?;
    MasterKeys::parse(&text).map_err(|error| Error::Usage(format!("{NAME}: {error}")))
}

fn bootstrap(settings: &Settings) -> Result<Option<Secret>, Error> {
    const NAME: &str = "WINDLASS_BOOTSTRAP_TOKEN";
    let Some(token) = settings.secret(NAME)? else { return Ok(None) };
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::Usage(format!("{NAME}: must be one word of visible ASCII characters")));
    }
    if token.len() < BOOTSTRAP_BYTES_ADVISED {
        tracing::warn!("{NAME} is short enough to be guessed: whoever guesses it may do everything");
    }
    Ok(Some(Secret::new(token)))
}

/// The parts that run.
struct Parts {
    api: ApiServer,
    coordinator: Coordinator,
    meters: Arc<Meters>,
}

async fn serve(listener: TcpListener, plan: Plan) -> anyhow::Result<u8> {
    let mut signals = Signals::listen()?;
    let address = listener.local_addr().context("asking for the listener's address")?;
    let scheme = plan.scheme();
    let parts = tokio::select! {
        started = start(listener, plan) => started?,
        () = signals.next() => {
            tracing::info!("stopped before it served");
            return Ok(0);
        }
    };
    tracing::info!("listening on {scheme}://{address}");
    signals.next().await;
    tracing::info!("stopping: the shards are handed over; a second signal stops at once");
    let Parts { api, mut coordinator, meters } = parts;
    let stop = async {
        // First, while requests are answered: the API takes a second to end where a connection is open.
        within(COORDINATOR_STOP_MAX, "the handover", coordinator.leave()).await;
        within(API_STOP_MAX, "the API", api.stop()).await;
        within(COORDINATOR_STOP_MAX, "the coordinator", coordinator.stop()).await;
    };
    tokio::select! {
        () = stop => {
            sum_up(&meters);
            tracing::info!("stopped");
        }
        () = signals.next() => {
            tracing::warn!("stopping at once: the other coordinators take over when the lease has ended");
            return Ok(exit::CANCELED);
        }
    }
    Ok(0)
}

async fn start(listener: TcpListener, plan: Plan) -> anyhow::Result<Parts> {
    let address = listener.local_addr().context("asking for the listener's address")?;
    if plan.migrate {
        migrate(&plan.database).await?;
    }
    let store = patiently(StoreError::may_pass, || PostgresStore::connect(&plan.database))
        .await
        .context("opening the database")?;
    let retries = store.retries();
    let store = Measured::new(Arc::new(store), Some(retries));
    let meters = store.meters();
    let store: Arc<dyn Store> = Arc::new(store);
    let scheme = plan.scheme();
    let authorities = plan.transport.authorities.clone();
    let nats = NatsOptions { authorities, ..NatsOptions::new(plan.nats, Role::Coordinator) };
    let bus = NatsBus::connect(nats).await.context("connecting to NATS")?;
    let bus: Arc<dyn Bus> = Arc::new(bus);
    let address = plan.advertise.unwrap_or_else(|| advertised(scheme, address, &host_name()));
    tracing::info!(address, "joining the cluster under this address");
    let config = Config { store, bus, keys: plan.keys, address, retention: plan.retention };
    let coordinator = patiently(StartError::may_pass, || Coordinator::start(config.clone())).await;
    let coordinator = coordinator.context("starting the coordinator")?;
    let service = coordinator.service();
    if let Some(token) = &plan.bootstrap {
        let may_pass = |error: &ServiceError| matches!(error, ServiceError::Unavailable { .. });
        patiently(may_pass, || service.admit(FIRST_ADMIN, token)).await.context("storing the first token")?;
        tracing::info!("the first admin token counts");
    }
    let api = api::serve_by(plan.transport, listener, service, Tokens::stored()).context("starting the API")?;
    Ok(Parts { api, coordinator, meters })
}

/// Says how long the store took for what it did.
fn sum_up(meters: &Meters) {
    for Reading { verb, spent, outcomes, .. } in meters.snapshot() {
        let count: u64 = outcomes.iter().sum();
        let mean_us = spent.as_micros() / u128::from(count.max(1));
        tracing::debug!(verb, count, mean_us, ?outcomes, "what the store was asked");
    }
    tracing::debug!(retries = meters.retries(), "statements that were repeated");
}

/// Asks for something that needs the database until that can be reached, and says so.
async fn patiently<T, E: Display>(may_pass: impl Fn(&E) -> bool, ask: impl AsyncFn() -> Result<T, E>) -> Result<T, E> {
    for number in 1..DATABASE_TRIES_MAX {
        match ask().await {
            Err(error) if may_pass(&error) => {
                tracing::warn!(%error, "trying again in a second ({number} of {DATABASE_TRIES_MAX})");
                tokio::time::sleep(DATABASE_WAIT).await;
            }
            done => return done,
        }
    }
    ask().await
}

#[cfg(test)]
mod tests {
    use shared::settings::Settings;

    use super::Plan;
    use crate::args::cluster::CoordinatorArgs;
    use crate::exit::Error;

    const DATABASE: (&str, &str) = ("WINDLASS_DATABASE_URL", "postgres://windlass@db/windlass");
    const KEYS: (&str, &str) = ("WINDLASS_MASTER_KEYS", "first:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");

    fn plan(args: &CoordinatorArgs, variables: &[(&str, &str)]) -> Result<Plan, Error> {
        let lookup = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Plan::read(args, &Settings::new(&lookup))
    }

    #[test]
    fn a_database_and_a_master_key_are_enough() {
        let plain = plan(&CoordinatorArgs::default(), &[DATABASE, KEYS]).unwrap();
        assert_eq!((plain.listen.as_str(), plain.nats.as_str()), ("127.0.0.1:7070", "nats://127.0.0.1:4222"));
        assert!(plain.migrate && plain.advertise.is_none() && plain.bootstrap.is_none());
        let args = CoordinatorArgs {
            nats_url: Some("nats://flag:4222".into()),
            advertise_url: Some("http://10.0.0.7:80/".into()),
            no_migrate: true,
            ..CoordinatorArgs::default()
        };
        let more = [DATABASE, KEYS, ("WINDLASS_NATS_URL", "nats://variable"), ("WINDLASS_LISTEN", "0.0.0.0:0")];
        let told = plan(&args, &more).unwrap();
        assert_eq!((told.listen.as_str(), told.nats.as_str()), ("0.0.0.0:0", "nats://flag:4222"));
        assert_eq!((told.migrate, told.advertise.as_deref()), (false, Some("http://10.0.0.7:80")));
        assert!(
            !plan(&CoordinatorArgs::default(), &[DATABASE, KEYS, ("WINDLASS_NO_MIGRATE", "true")]).unwrap().migrate
        );
    }

    #[test]
    fn what_is_missing_or_cannot_be_is_refused_by_name() {
        let wrong: [(&[(&str, &str)], &str); 7] = [
            (&[KEYS], "WINDLASS_DATABASE_URL: is not set"),
            (&[DATABASE], "WINDLASS_MASTER_KEYS: is not set"),
            (&[DATABASE, ("WINDLASS_MASTER_KEYS", "")], "WINDLASS_MASTER_KEYS: is not set"),
            (&[DATABASE, ("WINDLASS_MASTER_KEYS", "first:hunter2")], "WINDLASS_MASTER_KEYS: "),
            (&[KEYS, ("WINDLASS_DATABASE_URL", "sqlite:///a")], "windlass dev"),
            (&[DATABASE, KEYS, ("WINDLASS_ADVERTISE_URL", "host")], "WINDLASS_ADVERTISE_URL"),
            (&[DATABASE, KEYS, ("WINDLASS_BOOTSTRAP_TOKEN", "hunter2 b")], "WINDLASS_BOOTSTRAP_TOKEN: "),
        ];
        for (variables, words) in wrong {
            match plan(&CoordinatorArgs::default(), variables) {
                Err(Error::Usage(line)) => assert!(line.contains(words) && !line.contains("hunter2"), "{line}"),
                other => panic!("{variables:?}: {other:?}"),
            }
        }
    }
}

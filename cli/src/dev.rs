//! `windlass dev`: coordinator, worker and API in one process, until a signal stops it. A second signal stops it at
//! once; what that leaves is put right at the next start.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use anyhow::Context;
use serde_json::json;

use shared::settings::Settings;
use shared::spec::parse_single;
use shared::spec::reader::FieldError;
use shared::telemetry;

use crate::args::{DevArgs, variable};
use crate::data_dir::DataDir;
use crate::embedded::Embedded;
use crate::exit::{self, Error};
use crate::signals::Signals;

/// What is logged unless told otherwise: the web server's own words about its threads help nobody.
const LOG_DEFAULT: &str = "info,actix_server=warn";
/// Where the API listens unless told otherwise.
const LISTEN_DEFAULT: &str = "127.0.0.1:7070";

/// Runs until a signal, and returns the code to end with.
///
/// # Errors
/// When a setting can't be used, or a part doesn't start.
pub fn dev(args: &DevArgs) -> Result<u8, Error> {
    let settings = Settings::new(&variable);
    let log = args.log.clone().or_else(|| settings.text("WINDLASS_LOG"));
    telemetry::start(log.as_deref(), LOG_DEFAULT);
    let plan = Plan::read(args, &settings)?;
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
    slots: u32,
    tags: Vec<String>,
}

impl Plan {
    fn read(args: &DevArgs, settings: &Settings) -> Result<Self, Error> {
        let listen = args.listen.clone().or_else(|| settings.text("WINDLASS_LISTEN"));
        let slots = args.slots.map_or_else(|| settings.parsed("WINDLASS_SLOTS"), |slots| Ok(Some(slots)))?;
        let slots = slots
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get().try_into().unwrap_or(1)));
        if slots == 0 {
            return Err(Error::Usage("--slots: must be at least 1".to_owned()));
        }
        let from_variable = || settings.text("WINDLASS_TAG").unwrap_or_default();
        let tags = if args.tag.is_empty() { split(&from_variable()) } else { args.tag.clone() };
        Ok(Self { listen: listen.unwrap_or_else(|| LISTEN_DEFAULT.to_owned()), slots, tags: checked(&tags)? })
    }
}

async fn serve(dir: DataDir, listener: TcpListener, plan: Plan) -> anyhow::Result<u8> {
    let mut signals = Signals::listen()?;
    let address = listener.local_addr().context("asking for the listener's address")?;
    let mut parts = Embedded::open(dir).await?;
    let started = start(&mut parts, listener, address, plan).await;
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

async fn start(parts: &mut Embedded, listener: TcpListener, address: SocketAddr, plan: Plan) -> anyhow::Result<()> {
    let data_dir = parts.dir().path().to_owned();
    parts.work(worker::Config { tags: plan.tags, ..worker::Config::new(data_dir, plan.slots) }).await?;
    parts.serve(listener)?;
    parts.dir().announce(&format!("http://{}", reachable(address)))
}

fn listen(address: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| {
        format!("listening on {address} (choose another address with --listen; port 0 picks a free one)")
    })?;
    listener.set_nonblocking(true).context("setting up the listener")?;
    Ok(listener)
}

/// An address under which a client on this machine finds one that listens everywhere.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// `tags` sorted and without doubles, if a job could ask for each of them.
fn checked(tags: &[String]) -> Result<Vec<String>, Error> {
    let asks = json!({"steps": [{"run": "true"}], "tags": tags});
    let asked = parse_single(&asks, None);
    let refused = |error: &FieldError| format!("--tag: {} {}", tags.join(", "), error.detail);
    asked.map(|job| job.spec.tags).map_err(|errors| Error::Usage(errors.first().map(refused).unwrap_or_default()))
}

fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use shared::settings::Settings;

    use super::{Plan, reachable};
    use crate::args::DevArgs;

    fn plan(args: &DevArgs, variables: &[(&str, &str)]) -> Result<Plan, crate::exit::Error> {
        let lookup = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Plan::read(args, &Settings::new(&lookup))
    }

    fn nothing() -> DevArgs {
        DevArgs { listen: None, data_dir: None, slots: None, tag: Vec::new(), log: None }
    }

    #[test]
    fn an_empty_variable_counts_as_unset_and_a_flag_wins() {
        let unset = plan(&nothing(), &[("WINDLASS_LISTEN", ""), ("WINDLASS_SLOTS", ""), ("WINDLASS_TAG", "")]).unwrap();
        assert_eq!(unset.listen, "127.0.0.1:7070");
        assert!(unset.slots >= 1 && unset.tags.is_empty());
        let set = [("WINDLASS_LISTEN", "[::1]:0"), ("WINDLASS_SLOTS", "7"), ("WINDLASS_TAG", "b,, a, b")];
        let from_variables = plan(&nothing(), &set).unwrap();
        assert_eq!((from_variables.listen.as_str(), from_variables.slots), ("[::1]:0", 7));
        assert_eq!(from_variables.tags, ["a", "b"]);
        let flags = DevArgs { slots: Some(2), tag: vec!["c".into()], ..nothing() };
        let from_flags = plan(&flags, &set).unwrap();
        assert_eq!((from_flags.slots, from_flags.tags), (2, vec!["c".to_owned()]));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (name, value) in [("WINDLASS_SLOTS", "many"), ("WINDLASS_SLOTS", "0"), ("WINDLASS_TAG", "a b")] {
            assert!(plan(&nothing(), &[(name, value)]).is_err(), "{value}");
        }
    }

    #[test]
    fn a_client_finds_a_server_that_listens_everywhere() {
        assert_eq!(reachable("0.0.0.0:80".parse().unwrap()).to_string(), "127.0.0.1:80");
        assert_eq!(reachable("[::]:80".parse().unwrap()).to_string(), "[::1]:80");
        assert_eq!(reachable("10.0.0.1:80".parse().unwrap()).to_string(), "10.0.0.1:80");
    }
}

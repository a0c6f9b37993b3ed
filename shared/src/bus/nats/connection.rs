//! How the connection is kept: made again without end, found dead within seconds, and its ups and downs told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{ConnectOptions, Event, ServerAddr};
use tokio::sync::watch;

use crate::tls::Refused;

/// A peer that doesn't answer three pings in a row is dead.
const PING_EVERY: Duration = Duration::from_secs(2);
/// How long one try to connect may take.
const TRY_WITHIN: Duration = Duration::from_secs(3);
/// The wait before the first try after a break, doubled with each further one.
const FIRST_DELAY: Duration = Duration::from_millis(20);
const DELAY_MAX: Duration = Duration::from_secs(1);
/// Every so many tries without success are told.
const TELL_EVERY: u64 = 10;
/// The most messages that wait for one subscription or for the connection.
const INCOMING_MAX: usize = 16 * 1024;
const OUTGOING_MAX: usize = 4096;

/// Completes the options of a connection. The number that is returned grows whenever it comes or goes.
pub fn options(
    options: ConnectOptions,
    addresses: &[ServerAddr],
    refused: Refused,
) -> (ConnectOptions, watch::Receiver<u64>) {
    let (turn, turns) = watch::channel(0);
    let servers: Vec<_> = addresses.iter().map(|address| format!("{}:{}", address.host(), address.port())).collect();
    let told = Arc::new(Told { turn, servers: servers.join(","), refused, failed: AtomicU64::new(0) });
    let options = options
        .retry_on_initial_connect()
        .ping_interval(PING_EVERY)
        .connection_timeout(TRY_WITHIN)
        .subscription_capacity(INCOMING_MAX)
        .client_capacity(OUTGOING_MAX)
        .reconnect_delay_callback(delay)
        .event_callback(move |event| {
            let told = told.clone();
            async move { told.hear(&event) }
        });
    (options, turns)
}

/// URLs as they may be shown: without users and passwords.
pub fn shown(urls: &str) -> String {
    let one = |url: &str| match url.rsplit_once('@') {
        Some((before, host)) => match before.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://{host}"),
            None => host.to_owned(),
        },
        None => url.to_owned(),
    };
    urls.split(',').map(one).collect::<Vec<_>>().join(",")
}

/// What became of the connection, for the log and for those who wait for it.
struct Told {
    turn: watch::Sender<u64>,
    servers: String,
    /// What is wrong with the server's certificate.
    refused: Refused,
    /// Tries since it was lost.
    failed: AtomicU64,
}

impl Told {
    fn hear(&self, event: &Event) {
        let servers = &self.servers;
        match event {
            Event::Connected => {
                self.failed.store(0, Ordering::Relaxed);
                tracing::info!(%servers, "connected to NATS");
                self.turn.send_modify(|turn| *turn += 1);
            }
            Event::Disconnected => {
                tracing::warn!(%servers, "the connection to NATS is lost");
                self.turn.send_modify(|turn| *turn += 1);
            }
            Event::ClientError(error) => {
                let failed = self.failed.fetch_add(1, Ordering::Relaxed) + 1;
                if let Some(why) = self.refused.take() {
                    if failed == 1 || failed.is_multiple_of(TELL_EVERY) {
                        let remedy =
                            "WINDLASS_CA_FILE names its authority, and it must be for the name in WINDLASS_NATS_URL";
                        tracing::warn!(%servers, why, failed, "the certificate of NATS isn't trusted: {remedy}");
                    }
                } else if failed.is_multiple_of(TELL_EVERY) {
                    tracing::warn!(%servers, %error, failed, "there is still no connection to NATS");
                }
            }
            Event::SlowConsumer(_) => {
                tracing::warn!("messages from NATS are dropped: they come faster than they are read");
            }
            Event::ServerError(error) => tracing::warn!(%error, "NATS refuses something"),
            Event::LameDuckMode | Event::Draining | Event::Closed => {}
        }
    }
}

/// The wait before the try of that number.
fn delay(tries: usize) -> Duration {
    match u32::try_from(tries.saturating_sub(2)) {
        _ if tries <= 1 => Duration::ZERO,
        Ok(doublings) => FIRST_DELAY.saturating_mul(2_u32.saturating_pow(doublings)).min(DELAY_MAX),
        Err(_) => DELAY_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        assert_eq!(shown("nats://me:secret@one:4222,two:4222"), "nats://one:4222,two:4222");
        assert_eq!(shown("token@one"), "one");
    }

    #[test]
    fn the_wait_between_tries_grows_to_its_bound() {
        let waits = [1, 2, 3, 4, 20, usize::MAX].map(|tries| delay(tries).as_millis());
        assert_eq!(waits, [0, 20, 40, 80, 1000, 1000]);
    }
}

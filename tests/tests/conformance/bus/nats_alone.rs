//! What only a bus over NATS can meet: servers that don't fit, streams and consumers that vanish, connections that break.
//! Every case runs against both servers.

use std::sync::Arc;
use std::time::Duration;

use shared::bus::Bus;
use shared::bus::nats::{NatsBus, NatsOptions, Role, StartError};
use tests::nats::Nats;

use super::SOON;

mod breaks;
mod losses;
mod refusals;
mod words;

/// How long an offer may stay unsettled.
const SETTLE_WITHIN: Duration = Duration::from_secs(2);

/// Runs every case against a server, in a module of its name.
macro_rules! against {
    ($server:ident, $version:expr) => {
        against! { @cases $server, $version;
            refusals {
                a_stream_that_is_otherwise_is_refused_by_name,
                a_consumer_that_is_otherwise_is_refused_by_name,
                a_consumer_of_somebody_else_is_refused,
                a_server_that_does_not_fit_is_refused_by_both_roles,
                what_is_no_address_is_refused,
                a_stream_that_is_changed_later_makes_the_bus_unfit_until_it_is_changed_back,
            }
            losses {
                a_deleted_stream_is_made_again_and_its_offers_are_counted_as_lost,
                an_offer_is_taken_after_its_stream_was_deleted_and_made_by_another,
                a_deleted_consumer_is_made_again_and_loses_no_offer,
                a_store_that_was_wiped_is_noticed,
                a_full_stream_is_not_still_there,
                what_is_no_offer_is_thrown_away,
                a_worker_makes_nothing,
            }
            breaks {
                a_restart_of_the_server_ends_no_subscription_and_no_wait,
                without_a_server_calls_end_quickly,
                a_bus_without_a_server_works_once_there_is_one,
                a_server_that_says_nothing_is_noticed,
                no_event_is_lost_or_overtaken_over_a_break,
                subscribers_hear_on_after_a_break_and_a_deleted_stream,
            }
            words {
                an_event_is_what_a_plain_subscriber_expects,
                hints_come_in_a_list_or_alone_as_earlier_versions_send_them,
                what_is_too_large_among_others_harms_none_of_them,
                strangers_among_the_requests_harm_nobody,
                a_new_offer_reaches_who_waits_within_milliseconds,
                many_offers_are_put_out_at_once,
            }
        }
    };
    (@cases $server:ident, $version:expr; $($module:ident { $($case:ident,)+ })+) => {
        mod $server {
            $($(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    super::$module::$case($version).await;
                }
            )+)+
        }
    };
}

against!(installed, tests::nats::Version::Installed);
against!(current, tests::nats::Version::Current);

/// How these cases connect.
fn options(server: &Nats, role: Role) -> NatsOptions {
    NatsOptions { settle_within: SETTLE_WITHIN, connect_within: SOON, ..NatsOptions::new(server.url(), role) }
}

async fn connect(server: &Nats, role: Role) -> Arc<dyn Bus> {
    Arc::new(NatsBus::connect(options(server, role)).await.expect("a server that fits"))
}

/// Why a coordinator can't start.
async fn refused(server: &Nats) -> String {
    match NatsBus::connect(options(server, Role::Coordinator)).await {
        Err(StartError::Refused(why)) => why,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was let in"),
    }
}

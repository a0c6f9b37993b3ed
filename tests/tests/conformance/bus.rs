//! The bus's suite. An implementation gives a [`Medium`], or none where it can't be had here, which it says aloud; the line
//! `suite!(name, medium)` runs every case over it, each on a bus of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shared::bus::Bus;

mod enrolment;
mod events;
mod lanes;
mod local;
mod nats;
mod nats_alone;
mod offers;
mod requests;

/// How long a case waits for what must come: far longer than it takes.
const SOON: Duration = Duration::from_secs(10);

/// One bus of an implementation with nobody on it; what it needs is gone when it is dropped.
#[async_trait]
trait Medium: Send + Sync {
    /// Another connection to it, as another process would have.
    async fn connect(&self) -> Arc<dyn Bus>;

    /// How long an offer may stay unsettled on this bus.
    fn settle_within(&self) -> Duration;
}

/// Runs every case over the buses that an expression makes, in a module of the implementation's name.
macro_rules! suite {
    ($implementation:ident, $medium:expr) => {
        suite! { @cases $implementation, $medium;
            requests {
                a_request_is_answered_by_who_serves_its_address,
                a_request_to_nobody_has_no_responder,
                a_request_without_a_reply_ends_at_its_deadline,
                a_reply_after_the_deadline_harms_nobody,
                a_message_that_is_too_large_is_refused,
                many_requests_in_flight_get_each_its_own_reply,
                a_full_queue_is_busy_until_there_is_room,
                requests_are_shared_between_the_servers_of_a_service,
                a_server_that_is_gone_is_no_responder,
                both_servers_of_a_shard_get_each_request_and_the_first_reply_counts,
                what_a_silent_server_of_a_shard_drops_the_other_answers,
            }
            enrolment {
                a_program_that_wants_to_become_a_worker_is_answered_by_one_coordinator,
                an_enrolment_is_no_hello,
            }
            offers {
                an_offer_that_is_still_there_is_not_doubled,
                the_oldest_offer_of_a_lane_comes_first,
                an_earlier_lane_comes_first,
                no_more_offers_are_taken_than_wanted,
                offers_of_other_lanes_stay_where_they_are,
                an_offer_goes_to_one_of_those_who_wait,
                a_take_waits_for_a_new_offer,
                a_take_without_offers_ends_after_its_wait,
                an_offer_that_is_done_can_be_put_out_anew,
                an_offer_that_is_given_back_comes_again_after_its_delay,
                an_offer_that_is_not_settled_comes_again,
                an_offer_whose_holder_forgets_it_comes_again,
                a_withdrawn_offer_is_not_delivered,
                an_offer_withdrawn_from_a_hand_does_not_come_again,
                an_offer_withdrawn_and_put_out_anew_is_delivered_once,
                an_offer_put_out_anew_while_its_old_self_is_in_a_hand_is_delivered_once,
                an_offer_that_says_something_else_is_still_the_same_one,
                the_offer_of_the_next_attempt_is_another_one,
            }
            lanes {
                an_offer_on_a_lane_that_nobody_has_seen_reaches_who_waits_for_it,
                the_order_of_tags_makes_no_other_lane,
                many_lanes_are_waited_for_at_once,
                takers_in_a_crowd_get_each_offer_once,
                no_offer_is_lost_on_those_who_stop_waiting,
            }
            events {
                the_events_of_a_job_come_in_order_to_every_subscriber,
                a_subscriber_hears_what_is_published_from_then_on,
                what_is_sent_together_arrives_each_by_itself,
                a_hint_reaches_everybody,
                a_hint_of_shards_is_no_hint_of_a_job,
                publishing_needs_no_listener,
            }
        }
    };
    (@cases $implementation:ident, $medium:expr; $($module:ident { $($case:ident,)+ })+) => {
        mod $implementation {
            $($(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    if let Some(medium) = $medium {
                        super::$module::$case(&medium).await;
                    }
                }
            )+)+
        }
    };
}

suite!(over_local, Some(super::local::LocalMedium::new()));
suite!(over_nats_installed, super::nats::NatsMedium::start(tests::nats::Version::Installed));
suite!(over_nats_current, super::nats::NatsMedium::start(tests::nats::Version::Current));

//! The store's suite. An implementation gives a [`Database`]; the line `suite!(name, database)` runs every case over
//! it, each with a database of its own.

use std::sync::Arc;

use async_trait::async_trait;
use coordinator::store::Store;

mod audit;
mod changes;
mod keys;
mod logs;
mod ownership;
mod plans;
mod postgres;
mod postgres_alone;
mod postgres_formats;
mod postgres_keys;
mod postgres_retention;
mod queries;
mod query_cache;
mod retention;
mod roster;
mod sealed;
mod sqlite;
mod submissions;
mod terminal;
mod throughput;
mod writer;

/// One empty database of an implementation; what it needs is gone when it is dropped.
#[async_trait]
trait Database: Send + Sync {
    /// Another handle on it, as another process would have.
    async fn open(&self) -> Arc<dyn Store>;

    /// Carries out a statement past the store, as somebody with the database's password could.
    async fn raw(&self, sql: &str) -> Result<(), String>;

    /// A statement that makes so many workers.
    fn filling_workers(&self, count: u32) -> String;

    /// A statement that makes so many queued jobs with that tag, older than any other.
    fn filling_queue(&self, count: u32, tag: &str) -> String;

    /// A statement that registers so many deploy keys.
    fn filling_keys(&self, count: u32) -> String;

    /// Has every lease end now, where leases end by themselves.
    async fn end_leases(&self);
}

/// Runs every case over the databases that an expression makes, in a module of the implementation's name.
macro_rules! suite {
    ($implementation:ident, $database:expr) => {
        suite! { @cases $implementation, $database;
            ownership {
                the_first_takeover_owns_every_shard_at_epoch_one,
                a_takeover_takes_what_is_asked_for_alone,
                each_new_owner_raises_every_epoch_by_one,
                a_takeover_learns_how_far_each_shard_has_come,
                who_never_joined_writes_nothing,
                a_fenced_coordinator_writes_nothing_anywhere,
                a_renewal_tells_how_the_cluster_is,
                joining_again_after_a_lost_answer_is_no_harm,
                what_is_handed_to_somebody_who_is_gone_is_nobodys,
                what_is_not_owned_is_not_handed_over,
                a_successor_has_all_that_its_predecessor_had_and_the_predecessor_is_fenced,
                what_somebody_who_left_had_is_nobodys,
                a_lease_that_runs_is_not_buried,
                who_cannot_read_what_is_written_owns_nothing,
                a_cursor_never_moves_back,
                a_cursor_of_a_shard_that_is_not_owned_stays,
                what_is_stored_is_there_after_a_restart,
                a_commit_whose_caller_goes_away_is_whole,
                a_closed_store_is_unavailable,
            }
            roster {
                a_join_token_makes_workers_until_it_expires,
                only_so_many_workers_enrol,
                a_hello_is_noted_with_all_that_it_says,
                a_stranger_is_not_welcomed,
                a_hello_of_an_earlier_start_changes_nothing,
                a_hello_that_says_nothing_new_is_written_down_every_few_seconds,
                a_restart_ends_a_drain_and_nothing_else_that_is_wanted,
                tokens_are_listed_until_they_expire,
                a_token_that_is_known_is_not_added_again,
                a_token_that_is_revoked_counts_no_more_and_cannot_be_added_again,
                a_worker_that_is_revoked_is_not_heard_and_stays_so,
            }
            submissions {
                a_submitted_job_reads_back_as_it_was,
                the_events_of_submissions_are_numbered_in_their_shard,
                a_repeated_submission_finds_the_first_job,
                a_key_with_another_body_is_refused,
                an_expired_key_can_be_used_anew,
                the_same_key_of_another_owner_is_another_key,
                the_same_key_twice_in_one_submission_makes_one_job,
                another_body_under_a_key_of_the_same_submission_refuses_it_whole,
                a_submission_is_stored_whole_or_not_at_all,
                of_two_submissions_at_once_under_one_key_one_makes_a_job,
                a_job_whose_id_is_taken_is_refused,
                secrets_are_kept_apart_from_the_job,
                one_tag_set_too_many_is_refused_until_there_is_room,
            }
            changes {
                every_state_reads_back_as_it_was,
                that_a_job_was_given_back_reads_back_until_somebody_has_an_answer,
                a_transition_from_another_version_changes_nothing,
                a_transition_of_a_job_that_is_not_there_is_a_conflict,
                a_refused_transition_leaves_no_gap_and_harms_no_neighbour,
                two_transitions_of_one_job_can_be_in_one_batch,
                of_two_transitions_at_once_one_is_taken,
                a_grant_draws_a_fence_and_the_row_keeps_it,
                fences_only_grow,
                a_batch_that_cannot_be_numbered_stores_nothing,
            }
            terminal {
                the_database_refuses_to_change_a_terminal_row,
                the_database_refuses_to_alter_or_delete_an_event,
                a_late_report_on_a_terminal_job_is_noted,
                a_transition_that_would_change_a_terminal_job_is_a_conflict_and_harms_no_neighbour,
            }
            queries {
                jobs_are_listed_newest_first_page_by_page,
                a_list_is_narrowed_by_state,
                a_list_is_narrowed_by_tag_repository_and_label,
                a_label_with_odd_characters_is_found,
                open_jobs_are_listed_oldest_first_without_the_terminal_ones,
                live_jobs_are_those_with_an_attempt_under_way,
                offers_are_those_of_queued_jobs_for_their_next_attempt,
                the_place_in_the_queue_counts_what_is_offered_before_for_the_same_tags,
                the_place_in_a_queue_is_counted_up_to_its_bounds,
                the_soonest_timer_is_due_first,
                events_are_read_page_by_page,
                a_worker_is_told_the_tag_sets_that_it_has_all_tags_of,
                what_cannot_be_read_is_corrupt,
                a_database_that_answers_is_pinged,
            }
            logs {
                lines_are_numbered_over_chunks_and_attempts,
                reading_goes_on_in_the_middle_of_a_chunk,
                of_thousands_of_long_lines_some_are_returned_at_a_time_and_none_is_lost,
                a_chunk_that_is_sent_twice_is_stored_once,
                a_chunk_of_another_worker_or_attempt_is_refused,
                an_attempt_that_ended_has_an_hour_for_its_last_chunks,
                an_attempt_that_waits_for_its_retry_can_still_deliver,
                a_chunk_whose_numbers_are_impossible_is_refused,
                an_attempt_cannot_fill_the_database,
            }
            retention {
                a_job_that_is_old_goes_with_all_that_is_about_it,
                what_is_not_old_or_ended_or_published_or_ours_stays,
                a_log_goes_a_few_chunks_at_a_time_before_its_job,
                old_jobs_are_found_in_order_page_by_page,
                a_fenced_coordinator_removes_nothing,
                a_job_that_repeats_one_that_is_gone_still_shows,
                what_a_shard_has_lost_leaves_its_numbers_as_they_were,
                a_word_about_a_job_that_is_gone_is_a_conflict,
                what_has_expired_goes_the_oldest_first_and_the_rest_stays,
                the_database_lets_no_job_go_without_its_events_and_none_that_has_not_ended,
            }
            keys {
                a_deploy_key_reads_back_as_it_was,
                a_new_key_does_not_displace_one_of_its_name,
                a_key_is_replaced_by_whoever_knows_its_version,
                of_many_writers_of_one_key_one_is_heeded,
                a_removed_key_is_gone_and_can_be_stored_anew,
                a_key_is_not_stored_or_removed_without_its_line,
                keys_are_listed_bytewise_page_by_page,
                registered_names_are_told_from_others,
                only_so_many_keys_are_registered,
                jobs_that_wait_for_a_registered_key_are_unblocked,
                a_job_that_is_not_blocked_any_more_is_not_unblocked,
                who_may_not_write_changes_nothing_about_keys,
            }
            audit {
                a_line_of_the_audit_reads_back_as_it_was,
                a_request_has_one_line,
                of_many_lines_of_one_request_at_once_one_is_written,
                the_audit_is_read_newest_first,
                lines_that_are_noted_together_read_back_in_their_order,
                the_database_refuses_to_alter_or_delete_a_line_of_the_audit,
            }
            sealed {
                what_is_sealed_otherwise_is_found_page_by_page,
                what_is_resealed_is_what_was_read,
                a_master_key_keeps_its_check_until_it_is_forgotten,
                only_so_many_master_keys_are_known,
            }
        }
    };
    (@cases $implementation:ident, $database:expr; $($module:ident { $($case:ident,)+ })+) => {
        mod $implementation {
            $($(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    super::$module::$case(&$database).await;
                }
            )+)+
        }
    };
}

suite!(over_sqlite, super::sqlite::SqliteDatabase::new());
suite!(over_postgres, super::postgres::PostgresDatabase::new());

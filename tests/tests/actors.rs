//! The coordinator's actors on a real store and bus, in one process, with a worker that the tests play by hand; and
//! what actix itself does, on which their form rests.

#[path = "actors/actix_facts.rs"]
mod actix_facts;
#[path = "actors/backlog.rs"]
mod backlog;
#[path = "actors/batches.rs"]
mod batches;
#[path = "actors/handed_over.rs"]
mod handed_over;
#[path = "actors/jobs.rs"]
mod jobs;
#[path = "actors/keys.rs"]
mod keys;
#[path = "actors/master_keys.rs"]
mod master_keys;
#[path = "actors/parked.rs"]
mod parked;
#[path = "actors/races.rs"]
mod races;
#[path = "actors/recovery.rs"]
mod recovery;
#[path = "actors/retention.rs"]
mod retention;

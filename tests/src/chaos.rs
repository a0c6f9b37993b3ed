//! Chaos: a cluster of real processes under a load, and a seeded schedule of what goes wrong with them; and the judge, who
//! reads afterwards what was asked, answered, done, told and stored, and says which promise was broken.
//!
//! [`run`](run::run) is the whole. [`schedule`] says what goes wrong and when, [`arena`] holds the processes to which it
//! happens, [`load`] asks for jobs and writes down every call with its answer, [`evidence`] gathers what is there in the end,
//! all of it becomes a [`History`](history::History), and [`judge`] is a pure function of that.

pub mod arena;
pub mod evidence;
pub mod history;
pub mod judge;
pub mod load;
pub mod run;
pub mod schedule;

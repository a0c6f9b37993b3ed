//! What both sides of Windlass agree on: the job and how it moves, the words on the wire, the bus that carries
//! them, and the few things every process needs (clock, settings, telemetry).
//!
//! It depends on neither the coordinator nor the worker. A type enters when two crates need it.

pub mod bus;
pub mod clock;
pub mod cloud_event;
pub mod id;
pub mod job;
pub mod log;
pub mod proof;
pub mod role;
pub mod seal;
pub mod secret;
pub mod settings;
pub mod spec;
pub mod telemetry;
pub mod time;
pub mod tls;
pub mod view;
pub mod wire;

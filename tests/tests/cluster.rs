//! Stories of a cluster: real Postgres, NATS, coordinators and workers, some of which are killed, stopped, or cut off.

#[path = "cluster/bundles.rs"]
mod bundles;
#[path = "cluster/cancels.rs"]
mod cancels;
#[path = "cluster/coordinators.rs"]
mod coordinators;
#[path = "cluster/deploy_keys.rs"]
mod deploy_keys;
#[path = "cluster/events.rs"]
mod events;
#[path = "cluster/explain.rs"]
mod explain;
#[path = "cluster/faults.rs"]
mod faults;
#[path = "cluster/load.rs"]
mod load;
#[path = "cluster/outages.rs"]
mod outages;
#[path = "cluster/secrets.rs"]
mod secrets;
#[path = "cluster/tls.rs"]
mod tls;
#[path = "cluster/upgrades.rs"]
mod upgrades;
#[path = "cluster/workers.rs"]
mod workers;

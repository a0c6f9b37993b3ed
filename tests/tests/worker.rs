//! Stories of the worker: real processes under a real keeper, on the real bus, with a coordinator played by a script.

/// The program that becomes the keeper, and a worker that can be killed.
const HOST: &str = env!("CARGO_BIN_EXE_worker_host");

mod worker {
    mod checkout;
    mod claims;
    mod contact;
    mod crash;
    mod deploy_keys;
    mod duty;
    mod ending;
    mod identity;
    mod lost_contact;
    mod output;
    mod protection;
    mod remote;
    mod reports;
    mod steps;
}

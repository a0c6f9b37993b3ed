//! Stories of the worker: real processes under a real keeper, on the real bus, with a coordinator played by a script.

/// The program that becomes the keeper, and a worker that can be killed.
const HOST: &str = env!("CARGO_BIN_EXE_worker_host");

mod worker {
    mod checkout;
    mod contact;
    mod crash;
    mod ending;
    mod output;
    mod steps;
}

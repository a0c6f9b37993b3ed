//! Forty seconds of chaos with each of three seeds: an odd one, in which everything is troubled from the beginning, and two
//! even ones, in which a worker is cut off for longer than its lease. The same command with `--minutes 60` is for an hour.
//!
//! Each run has the program to itself that everybody runs, so that its mounts and its processes are gone with it.

use std::process::Command;

fn chaos(seed: u64) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chaos"));
    // The program under test is built already, and as the other rings want it.
    command.env_remove("CARGO").args(["--seconds", "40", "--seed"]).arg(seed.to_string());
    command.args(["--keep", concat!(env!("CARGO_TARGET_TMPDIR"), "/chaos")]);
    let done = command.output().expect("chaos runs");
    println!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{}", done.status);
}

#[test]
fn forty_seconds_of_chaos_break_no_promise_with_the_first_seed() {
    chaos(1);
}

#[test]
fn forty_seconds_of_chaos_break_no_promise_with_the_second_seed() {
    chaos(2);
}

#[test]
fn forty_seconds_of_chaos_break_no_promise_with_the_third_seed() {
    chaos(8);
}

//! `windlass` as the benchmarks run it: its worker can be told to pretend that it runs its jobs (`WINDLASS_BENCH_NO_OP`), so that
//! what is measured is Windlass alone. It is built with the feature `bench`, which no release has.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}

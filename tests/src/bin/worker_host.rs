//! The keeper's program for the worker's stories, and a worker in a process of its own that can be killed.
//!
//! `worker_host keeper …` is the keeper. `worker_host DIR SPEC` runs a worker on DIR that is granted the job of that
//! specification, and prints `ends` and the peak of its memory in KiB when it has told the end.

use std::path::Path;
use std::process::ExitCode;

use tests::scripted::Script;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.as_slice() {
        [_, first, ..] if first == worker::keeper::SUBCOMMAND => worker::keeper::main(),
        [program, dir, spec] => {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(host(program, Path::new(dir), spec));
            ExitCode::SUCCESS
        }
        _ => ExitCode::FAILURE,
    }
}

async fn host(program: &str, dir: &Path, spec: &str) {
    let script = Script::start().await;
    script.seen().forget_text = true;
    let worker = script.worker(program, dir, |config| config.adopts = true).await;
    let job = script.offer(serde_json::from_str(spec).expect("JSON")).await;
    let end = script.end(job).await;
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    println!("ends {} {}", peak.trim().trim_end_matches(" kB"), end.log.bytes);
    worker.stop().await;
}

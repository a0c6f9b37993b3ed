//! Jobs that write without measure.

use std::thread;
use std::time::Duration;

use serde_json::json;
use shared::clock;
use tests::dev::{DEADLINE, Dev};
use tests::process::{is_alive, noted, peak_kib, written};
use tests::wait::eventually;

/// What dev may have of memory at most: 300 MB, in KiB.
const PEAK_KIB_MAX: u64 = 300_000_000 / 1024;
/// The most bytes that are stored of an attempt's output.
const LOG_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Ten times what is promised from a cancel to the end of the process.
const GONE_WITHIN: Duration = Duration::from_secs(1);

#[test]
fn two_hundred_megabytes_are_cut_visibly_and_take_little_memory() {
    let dev = Dev::start_with(&["--slots", "1"]);
    let floods = ["head -c 200000000 /dev/zero | tr '\\0' x", "yes | head -c 200000000"];
    for flood in floods {
        let id = dev.submit(&json!({"steps": [{"run": format!("echo the head; {flood}; echo; echo the tail")}]}));
        let job = eventually(DEADLINE * 2, flood, || Some(dev.job(&id)).filter(|job| !job["finished_at"].is_null()));
        assert_eq!(job["state"], "succeeded");
        let text = dev.text(&id);
        println!("{} bytes of log; dev has had {:?} KiB at most", text.len(), peak_kib(dev.pid()));
        assert!(text.len() > LOG_BYTES_MAX / 2 && text.len() < LOG_BYTES_MAX + 1000, "{} bytes", text.len());
        assert!(text.starts_with("the head\n"), "{}", &text[..100]);
        let end = text[text.len() - 1000..].to_owned();
        assert!(end.contains("\nthe tail\n") && end.ends_with(" bytes of output were left out\n"), "{end}");
        assert_eq!(text.matches("the output is over 64 MiB: of what follows here only the end is kept").count(), 1);
        let peak = peak_kib(dev.pid()).expect("dev runs");
        assert!(peak < PEAK_KIB_MAX, "dev grew to {peak} KiB");
    }
}

#[test]
fn a_cancel_ends_endless_output_at_once() {
    let dev = Dev::start_with(&["--slots", "1"]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    // Right after its beginning, and after the limit of what is stored.
    for (index, bytes) in [1_000_000, 10_000_000, 100_000_000].into_iter().enumerate() {
        let note = dir.path().join(index.to_string());
        let id = dev.submit(&json!({"steps": [{"run": format!("echo $$ > {}; exec yes", note.display())}]}));
        let process = noted(&note);
        eventually(DEADLINE, "output", || written(process).filter(|written| *written >= bytes));
        let begun = clock::instant();
        let took = thread::scope(|scope| {
            let cancel = scope.spawn(|| dev.cancel(&id, &json!({"grace": "0s"})));
            eventually(GONE_WITHIN, "from the cancel to the process being gone", || (!is_alive(process)).then_some(()));
            let took = begun.elapsed();
            assert_eq!(cancel.join().expect("an answer").0, 202);
            took
        });
        println!("after {bytes} bytes of output: gone {} ms after the cancel was sent", took.as_millis());
        assert_eq!(dev.ended(&id)["state"], "canceled");
        assert_eq!(dev.job(&id)["outcome"]["confirmed"], true);
    }
}

//! A job's output on its way into its log.

use serde_json::json;
use shared::clock;
use shared::job::AttemptEnd;
use shared::log::Stream;
use tests::scripted::{Staged, pids};

use crate::HOST;

#[tokio::test(flavor = "multi_thread")]
async fn both_streams_arrive_whole_numbered_and_summed_up() {
    let staged = Staged::start(HOST, |_| {}).await;
    let run = "for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf 'no newline'";
    let job = staged.script.offer(json!({"steps": [{"run": run}]})).await;
    let end = staged.script.end(job).await;
    assert_eq!(end.end, AttemptEnd::Succeeded);
    assert_eq!(staged.script.text(job, Stream::Stdout), "out 1\nout 2\nout 3\nno newline");
    assert_eq!(staged.script.text(job, Stream::Stderr), "err 1\nerr 2\nerr 3\n");
    let seen = staged.script.seen();
    let chunks: Vec<_> = seen.chunks.values().collect();
    let numbers: Vec<u32> = chunks.iter().map(|chunk| chunk.number).collect();
    assert_eq!(numbers, (1..=end.log.chunks).collect::<Vec<_>>());
    assert_eq!(end.log.bytes, chunks.iter().map(|chunk| chunk.bytes()).sum::<u64>());
    let mut line = 1;
    for chunk in chunks {
        assert_eq!(chunk.first_line, line);
        line += chunk.lines();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_is_told_after_the_log_and_the_progress() {
    let staged = Staged::start(HOST, |_| {}).await;
    staged.script.seen().lose_logs = 1;
    let job = staged.script.offer(json!({"steps": [{"run": "echo one"}]})).await;
    staged.script.end(job).await;
    let order = staged.script.seen().order.clone();
    let last = |kind| order.iter().rposition(|heard| *heard == kind).unwrap();
    assert!(last("progress") < last("end"), "{order:?}");
    // The answer to the first chunk was lost: the end waits for it for two seconds, not for ever.
    staged.script.until("the log", |seen| (!seen.chunks.is_empty()).then_some(())).await;
    assert_eq!(staged.script.text(job, Stream::Stdout), "one\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_masked_in_the_log_and_in_the_tap_also_across_writes() {
    let (tap, mut tapped) = tokio::sync::mpsc::channel(64);
    let staged = Staged::start(HOST, |config| config.tap = Some(tap)).await;
    let run = "printf 'a hunter'; sleep 0.4; printf '2hunter2 b\\n'; printf %s \"$KEY\" | base64; echo \"$KEY\" >&2";
    let secrets = json!({"PASSWORD": "hunter2hunter2", "KEY": "first line\nsecond line\n"});
    let job = staged.script.offer(json!({"steps": [{"run": run}], "secrets": secrets})).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    assert_eq!(staged.script.text(job, Stream::Stdout), "a *** b\n***\n");
    // The key's own newline stays, and that of `echo`.
    assert_eq!(staged.script.text(job, Stream::Stderr), "***\n\n");
    staged.worker.stop().await;
    let mut out = Vec::new();
    while let Ok((stream, bytes)) = tapped.try_recv() {
        if stream == Stream::Stdout {
            out.extend_from_slice(&bytes);
        }
    }
    assert_eq!(String::from_utf8(out).unwrap(), "a *** b\n***\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaked_pipe_is_closed_after_two_seconds_and_the_log_says_so() {
    let staged = Staged::start(HOST, |_| {}).await;
    let note = staged.note("pids");
    let run = format!(
        "echo before; setsid sh -c 'echo $$ > {}; exec sleep 1000' & while [ ! -s {0} ]; do :; done",
        note.display()
    );
    let began = clock::instant();
    let job = staged.script.offer(json!({"steps": [{"run": run}, {"run": "echo next"}]})).await;
    pids(&note, 1).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    assert!(began.elapsed().as_secs() >= 2);
    let said = staged.script.text(job, Stream::Windlass);
    assert_eq!(said, "a process that the step left behind held its output open: closed after 2 s\n");
    assert_eq!(staged.script.text(job, Stream::Stdout), "before\nnext\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_under_way_is_shown_after_a_moment() {
    let staged = Staged::start(HOST, |_| {}).await;
    let job = staged.script.offer(json!({"steps": [{"run": "printf 'password: '; sleep 1000"}]})).await;
    staged.script.until("the prompt", |seen| (!seen.chunks.is_empty()).then_some(())).await;
    assert_eq!(staged.script.text(job, Stream::Stdout), "password: ");
    staged.script.stop(job, shared::time::Period::ZERO).await;
    staged.script.end(job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_megabytes_take_little_memory_and_are_cut_visibly() {
    let dir = tempfile::tempdir().unwrap();
    let spec = json!({"steps": [{"run": "yes | head -c 200000000; echo the end"}]}).to_string();
    let output = tokio::process::Command::new(HOST).arg(dir.path()).arg(spec).output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let [_, peak, bytes] = said.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{said}") };
    let (peak, bytes): (u64, u64) = (peak.parse().unwrap(), bytes.parse().unwrap());
    assert!(peak < 150 * 1024, "the process grew to {peak} KiB");
    assert!((60_000_000..=64 * 1024 * 1024).contains(&bytes), "{bytes} bytes of log");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_too_much_output_the_end_is_kept_and_the_cut_is_said() {
    let staged = Staged::start(HOST, |_| {}).await;
    let job = staged.script.offer(json!({"steps": [{"run": "yes | head -c 80000000; echo the end"}]})).await;
    let end = staged.script.end(job).await;
    staged.script.until("all chunks", |seen| (seen.chunks.len() == end.log.chunks as usize).then_some(())).await;
    let out = staged.script.text(job, Stream::Stdout);
    assert!(out.ends_with("y\nthe end\n"));
    let said = staged.script.text(job, Stream::Windlass);
    let left_out = 80_000_000 + "the end\n".len() - out.len();
    let limit = "the output is over 64 MiB: of what follows here only the end is kept";
    assert_eq!(said, format!("{limit}\n{left_out} bytes of output were left out\n"));
}

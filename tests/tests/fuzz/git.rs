//! What git and the kernel say: what is listed, what went wrong, who runs.

use shared::job::Exit;
use worker::fuzzed::{Heard, choose, names, parent_of, parsed, reason, submodule, trouble, without_passwords};

use super::campaign::{Bounds, campaign};

/// Of what git says 64 KiB are kept.
const SAID: Bounds = Bounds { largest: 64 * 1024, peak: 32, total: 64, fixed: 1 << 16 };

fn bytes_of(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn any_words_of_git_are_understood_somehow() {
    let samples = [
        "fatal: repository 'https://u:p@git.example.org/app.git/' not found\n",
        "remote: error: returned error: 503\nfatal: unable to access 'https://git.example.org/': HTTP 503\n",
        "git@host: Permission denied (publickey).\r\nfatal: Could not read from remote repository.\n",
        "fatal: clone of '../x' into submodule path 'vendor/x' failed\n",
    ];
    campaign("words of git", SAID, &bytes_of(&samples), |bytes| {
        let said = String::from_utf8_lossy(bytes);
        for exit in [Exit::ExitCode(128), Exit::Signal(9)] {
            drop((trouble(&said, exit), reason(&said, exit)));
        }
        drop(submodule(&said));
        let shown = without_passwords(&said);
        assert_eq!(without_passwords(&shown), shown, "a password that shows");
    });
}

#[test]
fn any_list_of_refs_is_looked_through() {
    let (one, two) = ("a".repeat(40), "b".repeat(64));
    let samples = [
        format!("{one}\tHEAD\n{one}\trefs/heads/main\n{two}\trefs/tags/main^{{}}\n"),
        format!("{one}\trefs/heads/x/main\n"),
    ];
    let wanted = ["HEAD", "main", "refs/tags/main", &one];
    campaign("a list of refs", SAID, &samples.map(String::into_bytes), |bytes| {
        let listed = String::from_utf8_lossy(bytes);
        for reference in wanted {
            if let Some((commit, name)) = choose(&listed, &names(reference)) {
                assert!(listed.contains(&format!("{commit}\t{name}")), "{name} isn't listed");
            }
        }
        drop(names(&listed));
    });
}

#[test]
fn any_flood_of_words_is_kept_in_part() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let bounds = Bounds { largest: 8 * 1024 * 1024, peak: 1, total: 1, fixed: 1 << 20 };
    campaign("a flood of words", bounds, &bytes_of(&["one\ntwo\n", "no end"]), |bytes| {
        let heard = Heard::default();
        runtime.block_on(heard.clone().listen(bytes));
        // What is no UTF-8 takes three bytes in its place.
        assert!(heard.text().len() <= 3 * 64 * 1024);
    });
}

#[test]
fn anything_that_the_kernel_says_of_processes_is_read_or_passed_over() {
    let stat = b"77 (a) S 1) Z (b)) S 12 70 71 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 1000 1 1\n".to_vec();
    campaign("a process", SAID, &[stat], |bytes| {
        parsed(bytes);
    });
    let mounts = "41 31 0:38 /docker/abc /sys/fs/c\\040group rw - cgroup2 cgroup2 rw\n\n0::/docker/abc/x\n";
    campaign("mounts", SAID, &bytes_of(&[mounts]), |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let (mounts, own) = text.split_once("\n\n").unwrap_or((&text, "0::/\n"));
        drop(parent_of(mounts, own));
    });
}

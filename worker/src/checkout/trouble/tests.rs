//! What git 2.30 to 2.47 and OpenSSH 8 to 9 really said, and what it means.

use std::time::Duration;

use shared::job::{Exit, Failure};

use super::{Asked, Kind, Trouble, of, overdue, submodule, without_passwords};

const UNREAD: &str = "\nfatal: Could not read from remote repository.\n\nPlease make sure you have the correct access \
                      rights\nand the repository exists.\n";

#[test]
fn the_words_of_git_and_ssh_are_understood() {
    let ssh = |words: &str| format!("{words}{UNREAD}");
    let table = [
        (ssh("ssh: connect to host 127.0.0.1 port 2222: Connection refused\r"), Kind::Passing),
        (ssh("ssh: connect to host 10.0.0.1 port 22: Connection timed out"), Kind::Passing),
        (ssh("ssh: connect to host h port 22: No route to host"), Kind::Passing),
        (ssh("ssh: Could not resolve hostname h: Temporary failure in name resolution"), Kind::Passing),
        (ssh("ssh: Could not resolve hostname h: Name or service not known"), Kind::Passing),
        (ssh("kex_exchange_identification: Connection closed by remote host"), Kind::Passing),
        (ssh("Connection closed by 127.0.0.1 port 22"), Kind::Passing),
        (ssh("Connection to 127.0.0.1 closed by remote host."), Kind::Passing),
        (ssh("Timeout, server git.example.org not responding."), Kind::Passing),
        (ssh("client_loop: send disconnect: Broken pipe\nfatal: early EOF"), Kind::Passing),
        (
            ssh("@@@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@@@@@\nHost key for \
                 [127.0.0.1]:2222 has changed and you have requested strict checking.\nHost key verification failed."),
            Kind::HostKeyChanged,
        ),
        (
            ssh("No ED25519 host key is known for [127.0.0.1]:2222 and you have requested strict checking.\nHost key \
                 verification failed."),
            Kind::HostKeyUnknown,
        ),
        (ssh("git@127.0.0.1: Permission denied (publickey)."), Kind::KeyRefused),
        (ssh("git@h: Permission denied (publickey,password,keyboard-interactive)."), Kind::KeyRefused),
        (
            ssh("Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures\nDisconnected from \
                 10.0.0.1 port 22"),
            Kind::KeyRefused,
        ),
        (ssh("fatal: '/srv/none.git' does not appear to be a git repository"), Kind::NoRepository),
        (ssh("ERROR: Repository not found."), Kind::NoRepository),
        (ssh("remote: ERROR: The project you were looking for could not be found."), Kind::NoRepository),
        ("fatal: the remote end hung up unexpectedly".to_owned(), Kind::Passing),
        ("fetch-pack: unexpected disconnect while reading sideband packet\nfatal: early EOF".to_owned(), Kind::Passing),
        ("error: index-pack died of signal 9\nfatal: fetch-pack: invalid index-pack output".to_owned(), Kind::Passing),
        ("error: Server does not allow request for unadvertised object 1234".to_owned(), Kind::RefusesIds),
        ("fatal: remote error: upload-pack: not our ref 1234".to_owned(), Kind::NoCommit),
        ("fatal: couldn't find remote ref refs/heads/none".to_owned(), Kind::NoCommit),
        (https("The requested URL returned error: 503"), Kind::Passing),
        ("error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502".to_owned(), Kind::Passing),
        (https("Could not resolve host: h"), Kind::Passing),
        (https("Failed to connect to h port 443 after 0 ms: Couldn't connect to server"), Kind::Passing),
        (https("Recv failure: Connection reset by peer"), Kind::Passing),
        (https("Operation too slow. Less than 1000 bytes/sec transferred the last 60 seconds"), Kind::Passing),
        (https("The requested URL returned error: 403"), Kind::CredentialsAsked),
        (
            "fatal: could not read Username for 'https://h': terminal prompts disabled".to_owned(),
            Kind::CredentialsAsked,
        ),
        ("fatal: Authentication failed for 'https://h/r.git/'".to_owned(), Kind::CredentialsAsked),
        ("fatal: repository 'https://h/r.git/' not found".to_owned(), Kind::NoRepository),
        (https("The requested URL returned error: 400"), Kind::Other),
        (https("server certificate verification failed. CAfile: none CRLfile: none"), Kind::Other),
        (https("SSL certificate problem: self-signed certificate"), Kind::Other),
        ("fatal: transport 'http' not allowed".to_owned(), Kind::Other),
        ("fatal: bad object refs/windlass/1234\nerror: h did not send all necessary objects".to_owned(), Kind::Broken),
        ("error: packfile ./objects/pack/pack-1.pack cannot be accessed\nfatal: early EOF".to_owned(), Kind::Broken),
        ("error: object file ./objects/12/34 is empty\nfatal: the remote end hung up".to_owned(), Kind::Broken),
        ("fatal: something that nobody has heard of".to_owned(), Kind::Other),
        (String::new(), Kind::Other),
    ];
    for (said, kind) in table {
        let found = of(&said, Exit::ExitCode(128));
        assert_eq!(found.kind, kind, "{said}: {}", found.reason);
    }
    assert_eq!(of("", Exit::Signal(9)).kind, Kind::Passing);
}

#[test]
fn a_server_that_is_busy_and_a_disk_that_is_full_are_told_apart_from_refusals() {
    let table = [
        (https("The requested URL returned error: 429"), Kind::Passing),
        (https("The requested URL returned error: 408"), Kind::Passing),
        ("error: RPC failed; HTTP 429 curl 22 The requested URL returned error: 429".to_owned(), Kind::Passing),
        ("fatal: write error: No space left on device\nfatal: early EOF".to_owned(), Kind::NoSpace),
        ("error: unable to write file big\nfatal: unable to checkout working tree".to_owned(), Kind::NoSpace),
    ];
    for (said, kind) in table {
        let found = of(&said, Exit::ExitCode(128));
        assert_eq!(found.kind, kind, "{said}: {}", found.reason);
    }
}

fn https(reason: &str) -> String {
    format!("fatal: unable to access 'https://h/r.git/': {reason}")
}

#[test]
fn the_line_that_says_why_is_told_without_marks_and_passwords() {
    let found = of(&format!("ssh: connect to host h port 22: Connection refused\r{UNREAD}"), Exit::ExitCode(128));
    assert_eq!(found.reason, "connect to host h port 22: Connection refused");
    let found = of("fatal: unable to access 'https://u:secret@h/r': odd", Exit::ExitCode(128));
    assert_eq!(found.reason, "unable to access 'https://u@h/r': odd");
    assert_eq!(of("", Exit::ExitCode(3)).reason, "git ended with exit code 3");
    for (text, told) in [
        ("https://u:p@h/r and ssh://git@h:22/r", "https://u@h/r and ssh://git@h:22/r"),
        ("https://u:p@h", "https://u@h"),
        ("https://u:p@x@h/a@b", "https://u@h/a@b"),
        ("git@h:r no password", "git@h:r no password"),
    ] {
        assert_eq!(without_passwords(text), told);
    }
}

#[test]
fn each_kind_ends_the_attempt_in_its_own_way() {
    let asked = Asked { url: "git@h:r", key: Some("app"), reference: "main", submodule: false };
    let ends = |kind, asked| Trouble { kind, reason: "why".to_owned() }.failure(asked);
    let compare = "compare it with `windlass key show app` and what the host has";
    let denied =
        Failure::DeployKeyDenied { message: format!("the server of git@h:r refused deploy key app (why): {compare}") };
    assert_eq!(ends(Kind::KeyRefused, asked), denied);
    for (kind, submodule, transient, told) in [
        (Kind::Passing, false, true, "git@h:r can't be reached: why"),
        (Kind::NoSpace, false, true, "this worker can't store git@h:r: why"),
        (Kind::Broken, false, true, "broken"),
        (Kind::Broken, true, false, "a submodule of git@h:r can't be checked out: why"),
        (Kind::HostKeyChanged, false, false, "(why): `windlass key rotate app --known-hosts F` pins the new one if it"),
        (
            Kind::HostKeyUnknown,
            false,
            false,
            "don't vouch for git@h:r (why): `windlass key rotate app --known-hosts F` pins",
        ),
        (Kind::CredentialsAsked, false, false, "git@h:r asks for credentials"),
        (Kind::NoRepository, false, false, "repository git@h:r not found"),
        (Kind::NoCommit, false, false, "ref main not found in git@h:r"),
        (Kind::NoCommit, true, false, "a submodule of git@h:r can't be checked out: why"),
        (Kind::Other, false, false, "git could not fetch git@h:r: why"),
    ] {
        match ends(kind, Asked { submodule, ..asked }) {
            Failure::CheckoutFailed { transient: said, message } => {
                assert!(message.contains(told), "{message}");
                assert_eq!(said, transient, "{message}");
            }
            other => panic!("{kind:?} ends with {other:?}"),
        }
    }
}

#[test]
fn a_submodules_failure_says_which_one() {
    let clone = "clone of 'ssh://h/part' into submodule path '/w/tree/below' failed";
    let said = format!(
        "git@h: Permission denied (publickey).{UNREAD}fatal: {clone}\nFailed to clone 'below'. Retry scheduled"
    );
    let found = of(&said, Exit::ExitCode(1)).of_submodule(submodule(&said).as_deref());
    let reason = format!("{clone}: git@h: Permission denied (publickey).");
    assert_eq!(found, Trouble { kind: Kind::KeyRefused, reason });
    // Said once where it is all that is said, and where nothing is named as before.
    let alone = of(&format!("fatal: {clone}"), Exit::ExitCode(1));
    assert_eq!(alone.clone().of_submodule(submodule(&format!("fatal: {clone}")).as_deref()), alone);
    assert_eq!(alone.clone().of_submodule(submodule("fatal: odd").as_deref()), alone);
}

#[test]
fn a_git_that_took_too_long_may_pass() {
    let found = overdue(Duration::from_mins(2));
    assert_eq!((found.kind, &*found.reason), (Kind::Passing, "git wasn't done within 2m, and was stopped"));
}

//! The routes of deploy keys: what each answers and refuses, and that none shows a private half.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::dev::Dev;
use tests::http::{Answer, Client};

use crate::{JSON, Server, refused};

const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
const ONLY_NEW: (&str, &str) = ("If-None-Match", "*");
const ONLY_THERE: (&str, &str) = ("If-Match", "*");

fn known_hosts() -> String {
    format!("git.example.org {HOST_KEY}\n")
}

/// A private key, and its public half, as ssh-keygen makes them.
fn key_pair(args: &[&str]) -> (String, String) {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("key");
    let made = Command::new("ssh-keygen").args(["-q", "-f"]).arg(&file).args(args).status().unwrap();
    assert!(made.success(), "{args:?}");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    (read(&file), read(&file.with_extension("pub")))
}

fn ed25519() -> (String, String) {
    key_pair(&["-t", "ed25519", "-N", ""])
}

fn put(client: &Client, name: &str, condition: Option<(&str, &str)>, body: &Value) -> Answer {
    let headers: Vec<_> = std::iter::once(JSON).chain(condition).collect();
    client.send("PUT", &format!("/api/v1/deploy-keys/{name}"), &headers, body.to_string().as_bytes())
}

/// The line of a private key that tells it from all others.
fn heart(private_key: &str) -> &str {
    private_key.lines().nth(3).unwrap()
}

#[test]
fn a_deploy_key_is_put_shown_changed_and_removed() {
    let server = Server::start();
    let (private_key, public_key) = ed25519();
    let body = json!({"private_key": private_key, "known_hosts": known_hosts()});
    let made = put(&server.client, "app", Some(ONLY_NEW), &body);
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.header("location"), "/api/v1/deploy-keys/app");
    let key = made.json.clone();
    let blob = public_key.split(' ').nth(1).unwrap();
    let fields: Vec<&String> = key.as_object().unwrap().keys().collect();
    let expected =
        ["algorithm", "changed_at", "created_at", "fingerprint", "known_hosts", "name", "public_key", "version"];
    assert_eq!(fields, expected);
    assert_eq!(key["public_key"], format!("ssh-ed25519 {blob} windlass:app"));
    assert_eq!((&key["name"], &key["version"], &key["algorithm"]), (&json!("app"), &json!(1), &json!("ssh-ed25519")));
    assert!(key["fingerprint"].as_str().unwrap().starts_with("SHA256:"));
    assert_eq!(server.get("/api/v1/deploy-keys/app").json, key);

    assert_eq!(refused(&put(&server.client, "app", Some(ONLY_NEW), &body), 412), ["If-None-Match"]);
    let mut listed = key.clone();
    listed.as_object_mut().unwrap().remove("known_hosts");
    assert_eq!(server.get("/api/v1/deploy-keys").json["deploy_keys"], json!([listed]), "host keys may be long");
    let nothing = put(&server.client, "app", None, &json!({}));
    assert_eq!(refused(&nothing, 422), ["private_key"]);
    assert!(nothing.text.contains("nothing would change") && nothing.text.contains("known_hosts"), "{}", nothing.text);
    let reserved = put(&server.client, "windlass.run-1", None, &body);
    assert_eq!(refused(&reserved, 400), ["name"]);
    assert!(reserved.text.contains("windlass's own"), "{}", reserved.text);
    let hosts = format!("# moved\n{}", known_hosts());
    let changed = put(&server.client, "app", Some(ONLY_THERE), &json!({"known_hosts": hosts}));
    assert_eq!((changed.status, &changed.json["version"]), (200, &json!(2)), "{}", changed.text);
    assert_eq!((&changed.json["fingerprint"], &changed.json["known_hosts"]), (&key["fingerprint"], &json!(hosts)));
    assert_eq!(changed.json["created_at"], key["created_at"]);
    let rotated = put(&server.client, "app", None, &json!({"generate": true}));
    assert_eq!((rotated.status, &rotated.json["version"]), (200, &json!(3)), "{}", rotated.text);
    assert_ne!(rotated.json["fingerprint"], key["fingerprint"]);
    assert_eq!(rotated.json["known_hosts"], json!(hosts), "what is left out stays");

    let removed = server.client.send("DELETE", "/api/v1/deploy-keys/app", &[], b"");
    assert_eq!((removed.status, removed.text.as_str()), (204, ""));
    for (method, condition) in [("GET", None), ("DELETE", None), ("PUT", Some(ONLY_THERE))] {
        let headers: Vec<_> = std::iter::once(JSON).chain(condition).collect();
        let body = if method == "PUT" { body.to_string() } else { String::new() };
        let answer = server.client.send(method, "/api/v1/deploy-keys/app", &headers, body.as_bytes());
        let (status, field) = if method == "PUT" { (412, "If-Match") } else { (404, "name") };
        assert_eq!(refused(&answer, status), [field], "{method}");
    }
    let audited = server.runtime.block_on(server.played.store.audited(Some("app"), 10)).unwrap();
    let lines: Vec<_> = audited.iter().map(|line| (line.action.as_str(), line.actor.to_string())).collect();
    let by = |action| (action, "client:dev".to_owned());
    let expected = ["deploy_key.remove", "deploy_key.rotate", "deploy_key.rotate", "deploy_key.put"].map(by);
    assert_eq!(lines, expected, "the newest first");
    assert!(audited[3].outcome.starts_with("version 1, SHA256:"));
}

#[test]
fn what_cannot_be_used_is_refused_by_its_field_with_the_remedy() {
    let server = Server::start();
    let (good, public_key) = ed25519();
    let (locked, _) = key_pair(&["-t", "ed25519", "-N", "hunter2"]);
    let (pem, _) = key_pair(&["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""]);
    let hosts = known_hosts();
    for (body, status, field, detail) in [
        (json!({"private_key": locked, "known_hosts": hosts}), 422, "private_key", "passphrase"),
        (json!({"private_key": pem, "known_hosts": hosts}), 422, "private_key", "ssh-keygen -p -N '' -f FILE"),
        (json!({"private_key": public_key, "known_hosts": hosts}), 422, "private_key", "public key"),
        (json!({"private_key": good}), 422, "known_hosts", "is required"),
        (json!({"generate": true}), 422, "known_hosts", "is required"),
        (json!({"known_hosts": hosts}), 422, "private_key", "is required"),
        (json!({}), 422, "private_key", "is required"),
        (json!({"private_key": good, "known_hosts": "git.example.org"}), 422, "known_hosts", "line 1"),
        (json!({"private_key": good, "known_hosts": ""}), 422, "known_hosts", "must not be empty"),
        (json!({"private_key": good, "known_hosts": "#".repeat(65537)}), 422, "known_hosts", "65536"),
        (json!({"private_key": good, "generate": true, "known_hosts": hosts}), 422, "private_key", "generate"),
        (json!({"private_key": 1, "known_hosts": hosts}), 422, "private_key", "must be a string"),
        (json!({"private_key": good, "known_hosts": hosts, "comment": "x"}), 422, "comment", "known here"),
        (json!([good]), 422, "body", "object"),
    ] {
        let answer = put(&server.client, "app", None, &body);
        assert_eq!(refused(&answer, status), [field], "{body:.60}");
        assert!(answer.text.contains(detail), "{detail}: {}", answer.text);
        assert!(!answer.text.contains(heart(&good)) && !answer.text.contains("hunter2"), "{}", answer.text);
    }
    assert_eq!(server.get("/api/v1/deploy-keys").json, json!({"deploy_keys": [], "next_cursor": null}));
}

#[test]
fn what_is_malformed_about_a_request_for_keys_is_named() {
    let server = Server::start();
    let body = json!({"generate": true, "known_hosts": known_hosts()});
    for name in ["-app", "a%20b", "a%00", &"a".repeat(256)] {
        assert_eq!(refused(&put(&server.client, name, None, &body), 400), ["name"], "{name}");
        assert_eq!(refused(&server.get(&format!("/api/v1/deploy-keys/{name}")), 404), ["name"], "{name}");
    }
    for (name, value) in [("If-None-Match", "\"1\""), ("If-Match", "1")] {
        assert_eq!(refused(&put(&server.client, "app", Some((name, value)), &body), 400), [name]);
    }
    let both = [JSON, ONLY_NEW, ONLY_THERE];
    let answer = server.client.send("PUT", "/api/v1/deploy-keys/app", &both, body.to_string().as_bytes());
    assert_eq!(refused(&answer, 400), ["If-Match"]);
    for (path, field) in [("limit=0", "limit"), ("cursor=x", "cursor"), ("state=x", "state")] {
        assert_eq!(refused(&server.get(&format!("/api/v1/deploy-keys?{path}")), 400), [field]);
    }
    let answer = server.client.send("PUT", "/api/v1/deploy-keys/app", &[], b"{}");
    assert_eq!(refused(&answer, 415), ["Content-Type"]);
    assert_eq!(refused(&server.post("/api/v1/deploy-keys/app", "{}"), 405), ["method"]);
    assert_eq!(refused(&server.post("/api/v1/vault/rekey", r#"{"x": 1}"#), 422), ["x"]);
    for path in ["/api/v1/deploy-keys", "/api/v1/deploy-keys/app", "/api/v1/vault/rekey"] {
        assert_eq!(refused(&server.client.with_token("").get(path), 401), ["Authorization"], "{path}");
    }
}

#[test]
fn keys_are_listed_page_by_page_in_the_order_of_their_names() {
    let server = Server::start();
    let names = ["Z", "a", "a.b", "ab", "b"];
    for name in ["b", "ab", "Z", "a.b", "a"] {
        let made = put(&server.client, name, None, &json!({"generate": true, "known_hosts": known_hosts()}));
        assert_eq!(made.status, 201, "{}", made.text);
    }
    let (mut seen, mut path) = (Vec::new(), "/api/v1/deploy-keys?limit=2".to_owned());
    loop {
        let page = server.get(&path).json;
        seen.extend(page["deploy_keys"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/deploy-keys?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, names);
}

#[test]
fn no_answer_and_no_line_of_the_log_holds_a_private_key() {
    let mut dev = Dev::start_with(&["--log", "trace"]);
    let (private_key, _) = ed25519();
    let mut answers = Vec::new();
    for body in [
        json!({"private_key": private_key, "known_hosts": known_hosts()}),
        json!({"private_key": private_key}),
        json!({"private_key": private_key, "generate": true, "known_hosts": known_hosts()}),
        json!({"private_key": [private_key], "known_hosts": known_hosts()}),
        json!({"private_key": private_key, "known_hosts": "x", "x": private_key}),
    ] {
        answers.push(put(&dev.client, "app", None, &body).text);
    }
    let broken = format!("{{\"private_key\": {}", json!(private_key));
    answers.push(dev.client.send("PUT", "/api/v1/deploy-keys/app", &[JSON], broken.as_bytes()).text);
    for path in ["/api/v1/deploy-keys/app", "/api/v1/deploy-keys"] {
        answers.push(dev.client.get(path).text);
    }
    let rekeyed = dev.client.post("/api/v1/vault/rekey", &json!({}));
    assert_eq!((rekeyed.status, &rekeyed.json), (200, &json!({"resealed": 0, "complete": true})));
    answers.push(dev.client.send("DELETE", "/api/v1/deploy-keys/app", &[], b"").text);
    assert!(answers[0].contains("windlass:app"), "{}", answers[0]);
    assert!(dev.stop().success());
    let log = dev.log();
    assert!(log.contains("TRACE"), "the log tells everything");
    for text in answers.iter().chain([&log]) {
        for line in private_key.lines().filter(|line| !line.starts_with("-----")) {
            assert!(!text.contains(line), "{text:.200}");
        }
    }
}

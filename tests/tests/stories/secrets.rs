//! A job's secrets: the step has them, and nobody else, in no form and no place.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::dev::{DEADLINE, Dev};
use tests::process::{children, command_lines};
use tests::wait::eventually;
use tests::windlass::{contains, files_with};

/// Has what base64 and URLs write in their own way.
const TOKEN: &str = "hunter2/correct+horse=battery&staple?";
const KEY: &str = "-----BEGIN KEY-----\nQ29ycmVjdCBob3JzZSBiYXR0ZXJ5\nc3RhcGxlIGFuZCBodW50ZXIy\n-----END KEY-----\n";

/// Prints the token in every form in which tools print it.
const PRINT: &str = r#"
url() { printf %s "$1" | sed 's|%|%25|g; s|/|%2F|g; s|+|%2B|g; s|=|%3D|g; s|&|%26|g; s|?|%3F|g'; }
echo "plain: $TOKEN"
echo "base64: $(printf %s "$TOKEN" | base64 -w 0)"
echo "within base64: $(printf %s "user:$TOKEN" | base64 -w 0)"
echo "url: $(url "$TOKEN")"
printf 'split: '; printf %s "$TOKEN" | head -c 11; sleep 0.5; printf %s "$TOKEN" | tail -c +12; echo
echo "to standard error: $TOKEN" >&2
echo "key:"; printf %s "$KEY"
echo "indented:"; printf %s "$KEY" | sed 's/^/    /'
echo "key in base64:"; printf %s "$KEY" | base64
echo "is it true: $(printf %s "$TOKEN" | sha256sum | cut -c 1-64) $(printf %s "$KEY" | sha256sum | cut -c 1-64)"
"#;

/// What `program` makes of `input`.
fn filtered(program: &[&str], input: &str) -> String {
    let mut command = Command::new(program[0]);
    let mut child =
        command.args(&program[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a program");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("its end");
    String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
}

/// What must be nowhere: the secrets, their encoded forms and their lines.
fn forms() -> Vec<String> {
    let base64 = |text: &str| filtered(&["base64", "-w", "0"], text);
    let mut forms = vec![TOKEN.to_owned(), "hunter2%2Fcorrect%2Bhorse%3Dbattery%26staple%3F".to_owned()];
    forms.extend([TOKEN, KEY].map(|secret| base64(secret).trim_end_matches('=').to_owned()));
    // The middle of what it is as a part of something longer.
    forms.push(base64(&format!("user:{TOKEN}"))[8..40].to_owned());
    forms.extend(KEY.lines().map(str::to_owned));
    forms.extend(["hunter2/cor".to_owned(), "horse=battery&staple?".to_owned()]);
    forms
}

fn spec(script: &str) -> Value {
    json!({"steps": [{"run": script}], "secrets": {"TOKEN": TOKEN, "KEY": KEY}})
}

/// The forms that stand in `text`, which `name` says what it is.
fn leaks(name: &str, text: &[u8]) -> Vec<String> {
    let found = forms().into_iter().filter(|form| contains(text, form.as_bytes()));
    found.map(|form| format!("{name}: {form}")).collect()
}

/// Everywhere but in the step: files, arguments, environments, answers, log lines.
fn everywhere(dev: &Dev, id: &str) -> Vec<String> {
    let mut leaked: Vec<String> = files_with(&dev.data_dir(), &forms())
        .into_iter()
        .map(|(path, form)| format!("{}: {form}", path.display()))
        .collect();
    for (pid, arguments) in command_lines() {
        leaked.extend(leaks(&format!("the arguments of {pid}"), &arguments));
    }
    for pid in [vec![dev.pid()], children(dev.pid())].concat() {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        leaked.extend(leaks(&format!("the environment of {pid}"), &environment));
    }
    leaked.extend(leaks("dev's log", dev.log().as_bytes()));
    for path in ["", "/events?limit=1000", "/logs?limit=1000"] {
        let answer = dev.client.get(&format!("/api/v1/jobs/{id}{path}"));
        assert_eq!(answer.status, 200);
        leaked.extend(leaks(path, answer.text.as_bytes()));
    }
    leaked.extend(leaks("the list", dev.client.get("/api/v1/jobs").text.as_bytes()));
    leaked.extend(leaks("the log as text", dev.text(id).as_bytes()));
    leaked
}

/// What the job wrote to that stream.
fn written(dev: &Dev, id: &str, stream: &str) -> String {
    let page = dev.client.get(&format!("/api/v1/jobs/{id}/logs?limit=1000")).json;
    let lines = page["lines"].as_array().expect("lines").iter().filter(|line| line["stream"] == stream);
    let end = |line: &Value| if line["partial"] == true { "" } else { "\n" };
    lines.map(|line| format!("{}{}", line["text"].as_str().expect("text"), end(line))).collect::<Vec<_>>().concat()
}

#[test]
fn a_secret_is_masked_in_every_form_and_in_no_file_argument_or_answer() {
    let dev = Dev::start_with(&["--log", "debug"]);
    let dir = TempDir::new().expect("a temporary directory");
    let go = dir.path().join("go");
    let id = dev.submit(&spec(&format!("{PRINT}\nwhile [ ! -e {} ]; do sleep 0.05; done; exit 1", go.display())));
    eventually(DEADLINE, "the last line", || dev.text(&id).contains("is it true").then_some(()));
    assert_eq!(everywhere(&dev, &id), Vec::<String>::new(), "while it runs");
    fs::write(&go, "").expect("a file");
    assert_eq!(dev.ended(&id)["state"], "failed");
    assert_eq!(everywhere(&dev, &id), Vec::<String>::new(), "afterwards");

    let sum = |text: &str| filtered(&["sha256sum"], text)[..64].to_owned();
    // The two streams are read one after the other.
    let text = ["stdout", "stderr"].map(|stream| written(&dev, &id, stream)).concat();
    let line =
        |begins: &str| text.lines().find(|line| line.starts_with(begins)).unwrap_or_else(|| panic!("{begins}: {text}"));
    assert_eq!(line("is it true"), format!("is it true: {} {}", sum(TOKEN), sum(KEY)));
    for masked in ["plain: ***", "base64: ***", "url: ***", "split: ***", "to standard error: ***"] {
        assert_eq!(line(masked.split_once("***").expect("a mask").0), masked, "{text}");
    }
    assert!(line("within base64: ").contains("***"));
    assert!(text.contains("key:\n***\nindented:\n    ***\n"), "{text}");
}

#[test]
fn a_job_that_is_run_again_by_hand_has_its_secrets_still_also_after_a_restart() {
    let mut dev = Dev::start();
    let dir = TempDir::new().expect("a temporary directory");
    let note = dir.path().join("sums");
    let script = format!("printf %s \"$TOKEN\" | sha256sum >> {}", note.display());
    let first = dev.submit(&spec(&script));
    assert_eq!(dev.ended(&first)["state"], "succeeded");
    dev.restart();
    let answer = dev.client.post(&format!("/api/v1/jobs/{first}/retry"), &json!({}));
    assert_eq!((answer.status, &answer.json["retry_of"]), (201, &json!(first)), "{}", answer.text);
    let second = answer.json["id"].as_str().expect("an id").to_owned();
    assert_ne!(second, first);
    assert_eq!(dev.ended(&second)["state"], "succeeded");
    let sum = filtered(&["sha256sum"], TOKEN);
    assert_eq!(fs::read_to_string(&note).expect("sums"), format!("{sum}\n{sum}\n"));
    assert_eq!(dev.events(&second)[0]["retry_of"], json!(first));
    assert_eq!(everywhere(&dev, &second), Vec::<String>::new());
}

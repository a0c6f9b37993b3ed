//! A client of the HTTP API that hides nothing: every answer is returned with its status, whatever that is, and every
//! stream as it comes.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;
use ureq::http::{HeaderMap, Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// How long an answer may take, and how long a stream is read at most.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);
const STREAM_WITHIN: Duration = Duration::from_mins(2);
/// The most bytes of an answer: a whole log fits.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Speaks to one server with one token.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    base: String,
    token: String,
    answer_within: Duration,
}

/// What the server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// The body as JSON; null where it is none.
    pub json: Value,
}

/// One message of a stream of server-sent events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Where to go on after it; empty where it says nothing of that.
    pub id: String,
    /// What it is; empty for an ordinary one.
    pub event: String,
    pub data: String,
}

impl Client {
    /// A client of the server at `base`, like `http://127.0.0.1:7070`. An empty token is not sent.
    pub fn new(base: &str, token: &str) -> Self {
        // Where an answer leads to is an answer as well.
        let agent = Agent::config_builder().http_status_as_error(false).max_redirects(0);
        let agent = agent.max_redirects_will_error(false).build().new_agent();
        Self { agent, base: base.to_owned(), token: token.to_owned(), answer_within: ANSWER_WITHIN }
    }

    /// Where the server is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A client of a server whose certificate is from the authority in that PEM file, and from no other.
    ///
    /// # Panics
    /// When the file holds none.
    pub fn trusting(base: &str, token: &str, authority: &Path) -> Self {
        let pem = fs::read(authority).expect("a file");
        let roots = RootCerts::new_with_certs(&[Certificate::from_pem(&pem).expect("a certificate")]);
        let tls = TlsConfig::builder().root_certs(roots).build();
        let agent = Agent::config_builder().http_status_as_error(false).tls_config(tls).build().new_agent();
        Self { agent, ..Self::new(base, token) }
    }

    /// The same server with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// The same server by connections of its own, with no more patience than that for each answer.
    #[must_use]
    pub fn within(&self, patience: Duration) -> Self {
        Self { answer_within: patience, ..Self::new(&self.base, &self.token) }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// Any request, with exactly these headers beside the token's.
    ///
    /// # Panics
    /// When there is no answer.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let answer = self.try_send(method, path, headers, body);
        answer.unwrap_or_else(|error| panic!("{method} {}{path}: {error}", self.base))
    }

    /// The same, where an answer may be lost.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, ureq::Error> {
        let mut response = self.run(method, path, headers, body, self.answer_within)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).lossy_utf8(true).read_to_string()?;
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status, headers, text, json })
    }

    /// The lines of a stream as they come, while the server keeps it open, but for [`STREAM_WITHIN`] at most.
    pub fn stream(&self, path: &str, headers: &[(&str, &str)]) -> impl Iterator<Item = String> + use<> {
        let response = self.run("GET", path, headers, b"", STREAM_WITHIN);
        let response = response.unwrap_or_else(|error| panic!("GET {}{path}: {error}", self.base));
        assert_eq!(response.status().as_u16(), 200, "GET {path}");
        let reader: Box<dyn Read> = Box::new(response.into_body().into_reader());
        BufReader::new(reader).lines().map_while(Result::ok)
    }

    /// The messages of a stream of server-sent events, after the one with the id `last` where that isn't empty.
    pub fn messages(&self, path: &str, last: &str) -> impl Iterator<Item = Message> + use<> {
        let headers = [("accept", "text/event-stream"), ("last-event-id", last)];
        let headers = if last.is_empty() { &headers[..1] } else { &headers };
        let mut lines = self.stream(path, headers);
        std::iter::from_fn(move || {
            let mut message = Message::default();
            loop {
                let line = lines.next()?;
                let (field, value) = line.split_once(": ").unwrap_or((line.as_str(), ""));
                match field {
                    "id" => value.clone_into(&mut message.id),
                    "event" => value.clone_into(&mut message.event),
                    "data" => message.data.push_str(value),
                    "" if message != Message::default() => return Some(message),
                    _ => {}
                }
            }
        })
    }

    fn run(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        within: Duration,
    ) -> Result<Response<ureq::Body>, ureq::Error> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = self.agent.configure_request(request.body(body).expect("a request"));
        let request = request.timeout_global(Some(within)).allow_non_standard_methods(true).build();
        self.agent.run(request)
    }
}

impl Answer {
    /// A header's value, empty where it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The fields that a problem names, in its order.
    pub fn rejected_fields(&self) -> Vec<&str> {
        let errors = self.json["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        errors.iter().filter_map(|error| error["field"].as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    use serde_json::json;
    use shared::clock;

    use super::{ANSWER_WITHIN, Client};

    #[test]
    fn patience_ends_where_no_answer_comes() {
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let base = format!("http://{}", silent.local_addr().expect("an address"));
        let (client, begun) = (Client::new(&base, "").within(Duration::from_millis(50)), clock::instant());
        assert!(client.try_send("GET", "/", &[], b"").is_err());
        assert!(begun.elapsed() < ANSWER_WITHIN, "as long as anybody waits");
    }

    #[test]
    fn an_answer_is_returned_whatever_its_status() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a request");
            let mut request = vec![0; 4096];
            let mut length = 0;
            while !String::from_utf8_lossy(&request[..length]).ends_with("{\"a\":1}") {
                length += stream.read(&mut request[length..]).expect("more of the request");
            }
            let body = r#"{"errors": [{"field": "steps[0].run", "detail": "…"}]}"#;
            let head = format!("HTTP/1.1 422 x\r\nretry-after: 7\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + body).as_bytes()).expect("an answer");
            String::from_utf8_lossy(&request[..length]).to_lowercase()
        });
        let answer = Client::new(&base, "t0ken").post("/api/v1/jobs", &json!({"a": 1}));
        assert_eq!((answer.status, answer.header("retry-after")), (422, "7"));
        assert_eq!(answer.rejected_fields(), ["steps[0].run"]);
        let request = server.join().expect("the server's end");
        assert!(request.starts_with("post /api/v1/jobs http/1.1\r\n"), "{request}");
        assert!(request.contains("authorization: bearer t0ken\r\n"), "{request}");
    }
}

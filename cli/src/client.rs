//! Speaks to the HTTP API: with the token, patient where the server isn't there or can't right now, and turning its
//! problems into lines for people.

use std::time::Duration;

use ureq::http::Response;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use shared::secret::Secret;
use shared::settings::Settings;
use shared::tls::Authorities;

use crate::args::api::ApiArgs;
use crate::exit::Error;
use crate::terminal::say;
use crate::trust::authorities;

pub mod address;
mod problem;
pub mod sse;
pub mod stream;
pub mod token;

use address::Address;

/// The most bytes of one answer: a page of the largest jobs, twice.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How often a request is sent at most.
const TRIES_MAX: u32 = 5;
/// The wait before the second try; doubled before each further one.
const WAIT_FIRST: Duration = Duration::from_millis(200);
/// The longest wait between two tries, also where the server asks for a longer one.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// What to do about a server that isn't there.
const REMEDY: &str = "is the coordinator running? WINDLASS_URL says where it is";
/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long the server may be silent, in an answer and in a stream; a stream is then taken up again.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// The API at one address.
pub struct Client {
    agent: Agent,
    base: String,
    token: Option<Secret>,
}

/// What a request does when it is sent a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeated {
    /// Nothing more than the first time.
    Harmless,
    /// The same again: it is sent anew only where it certainly never arrived.
    Doubles,
}

/// A request without its token.
struct Request<'a> {
    method: Method,
    path: &'a str,
    headers: &'a [(&'a str, &'a str)],
    /// JSON; only where something is posted or put.
    body: &'a str,
    repeated: Repeated,
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    Post,
    Put,
    Delete,
}

/// Why a try gave no answer that can be used.
enum Failed {
    /// Another try may do better, after the wait that the server asked for, if it did.
    Passing {
        why: String,
        wait: Option<Duration>,
    },
    ForGood(Error),
}

impl Client {
    /// The API that the arguments and variables name.
    ///
    /// # Errors
    /// When the address or the token can't be used.
    pub fn new(args: &ApiArgs, settings: &Settings) -> Result<Self, Error> {
        let data_dir = args.data_dir.clone().map_or_else(|| settings.data_dir(), Ok);
        let address = Address::find(args.url.as_deref(), settings, data_dir.as_deref().ok())?;
        let token = match token::told(settings)? {
            Some(token) => Some(token),
            // The token of this machine's `dev` is for this machine alone.
            None if address.is_local() => token::kept(&data_dir?)?,
            None => None,
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_recv_response(Some(SILENCE_MAX))
            .timeout_per_read(Some(SILENCE_MAX))
            .user_agent(concat!("windlass/", env!("CARGO_PKG_VERSION")));
        let config = match authorities(args.ca_file.as_deref(), settings)? {
            Some(own) => config.tls_config(trusting(&own)),
            None => config,
        };
        // What is on this machine isn't reached through a proxy.
        let config = if address.is_local() { config.proxy(None) } else { config };
        Ok(Self { agent: config.build().into(), base: address.base, token })
    }

    /// The body of `path`, which begins with a slash.
    ///
    /// # Errors
    /// What the server refuses, or that it can't be reached.
    pub fn get(&self, path: &str) -> Result<String, Error> {
        self.text(&Request { method: Method::Get, path, headers: &[], body: "", repeated: Repeated::Harmless })
    }

    /// Puts JSON, on the conditions of these headers.
    ///
    /// # Errors
    /// What the server refuses, or that it can't be reached.
    pub fn put(&self, path: &str, body: &Secret, headers: &[(&str, &str)]) -> Result<String, Error> {
        // Repeated, it could be refused for what it has done itself.
        self.text(&Request { method: Method::Put, path, headers, body: body.reveal(), repeated: Repeated::Doubles })
    }

    /// Deletes what is there.
    ///
    /// # Errors
    /// What the server refuses, or that it can't be reached.
    pub fn delete(&self, path: &str) -> Result<String, Error> {
        self.text(&Request { method: Method::Delete, path, headers: &[], body: "", repeated: Repeated::Doubles })
    }

    /// Posts JSON, under an idempotency key if there is one.
    ///
    /// # Errors
    /// What the server refuses, or that it can't be reached.
    pub fn post(&self, path: &str, body: &str, key: Option<&str>, repeated: Repeated) -> Result<String, Error> {
        let key = key.map(|key| ("idempotency-key", key));
        self.text(&Request { method: Method::Post, path, headers: key.as_slice(), body, repeated })
    }

    /// An open answer whose body hasn't been read.
    fn open(&self, path: &str, headers: &[(&str, &str)]) -> Result<Response<Body>, Error> {
        self.patiently(&Request { method: Method::Get, path, headers, body: "", repeated: Repeated::Harmless }, Ok)
    }

    fn text(&self, request: &Request) -> Result<String, Error> {
        let read = |answer: Response<Body>| {
            let text = answer.into_body().into_with_config().limit(ANSWER_BYTES_MAX).read_to_string();
            text.map_err(|error| self.failed(&error, request.repeated))
        };
        self.patiently(request, read)
    }

    /// Sends the request and reads its answer, again where that may help, and says so.
    fn patiently<T>(&self, request: &Request, read: impl Fn(Response<Body>) -> Result<T, Failed>) -> Result<T, Error> {
        let mut backoff = WAIT_FIRST;
        for number in 1..=TRIES_MAX {
            match self.send(request).and_then(&read) {
                Ok(done) => return Ok(done),
                Err(Failed::ForGood(error)) => return Err(error),
                Err(Failed::Passing { why, .. }) if number == TRIES_MAX => {
                    return Err(Error::failed(format_args!("{why}; gave up after {TRIES_MAX} tries ({REMEDY})")));
                }
                Err(Failed::Passing { why, wait }) => {
                    let wait = wait.unwrap_or(backoff).max(backoff).min(WAIT_MAX);
                    say(&format!("{why}; trying again in {} ms ({number} of {TRIES_MAX})", wait.as_millis()));
                    std::thread::sleep(wait);
                    backoff *= 2;
                }
            }
        }
        Err(Error::failed("no try was made"))
    }

    fn send(&self, request: &Request) -> Result<Response<Body>, Failed> {
        let url = format!("{}{}", self.base, request.path);
        let token = self.token.as_ref().map(|token| format!("Bearer {}", token.reveal()));
        let authorization = token.as_deref().map(|token| ("authorization", token));
        let headers = request.headers.iter().copied().chain(authorization);
        let json = ("content-type", "application/json");
        let answer = match request.method {
            Method::Get => headers.fold(self.agent.get(&url), |call, (name, value)| call.header(name, value)).call(),
            Method::Delete => {
                headers.fold(self.agent.delete(&url), |call, (name, value)| call.header(name, value)).call()
            }
            Method::Post => {
                let headers = headers.chain([json]);
                headers.fold(self.agent.post(&url), |call, (name, value)| call.header(name, value)).send(request.body)
            }
            Method::Put => {
                let headers = headers.chain([json]);
                headers.fold(self.agent.put(&url), |call, (name, value)| call.header(name, value)).send(request.body)
            }
        };
        let answer = answer.map_err(|error| self.failed(&error, request.repeated))?;
        match answer.status().as_u16() {
            200..300 => Ok(answer),
            429 | 503 if request.repeated == Repeated::Harmless => {
                let seconds = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
                let why = format!("{} is not available right now", self.base);
                Err(Failed::Passing { why, wait: seconds.map(Duration::from_secs) })
            }
            status => Err(Failed::ForGood(self.refused(status, answer))),
        }
    }

    /// What an answer of `status` refuses.
    fn refused(&self, status: u16, answer: Response<Body>) -> Error {
        let text = answer.into_body().into_with_config().limit(ANSWER_BYTES_MAX).read_to_string().unwrap_or_default();
        let mut lines = problem::lines(status, &text);
        if status == 401 {
            let remedy = "set WINDLASS_TOKEN or WINDLASS_TOKEN_FILE";
            lines = vec![match self.token {
                Some(_) => format!("{} refuses the token: {remedy}", self.base),
                None => format!("{} asks for a token: {remedy}", self.base),
            }];
        }
        Error::Failed(lines)
    }

    /// What it means that there is no answer.
    fn failed(&self, error: &ureq::Error, repeated: Repeated) -> Failed {
        use std::io::ErrorKind::ConnectionRefused;
        let reason = match error {
            ureq::Error::Io(error) => error.to_string(),
            error => error.to_string(),
        };
        let why = format!("{} doesn't answer: {reason}", self.base);
        if let Some(remedy) = trouble(&self.base, error, &reason) {
            return Failed::ForGood(Error::failed(format_args!("{why}: {remedy}")));
        }
        let unsent = match error {
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => true,
            ureq::Error::Io(error) => error.kind() == ConnectionRefused,
            _ => false,
        };
        let passing = match error {
            ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => true,
            _ => unsent,
        };
        match (passing, repeated, unsent) {
            (true, Repeated::Harmless, _) | (true, Repeated::Doubles, true) => Failed::Passing { why, wait: None },
            (true, Repeated::Doubles, false) => Failed::ForGood(Error::failed(format_args!(
                "{why}; whether it was done is unknown: look before you repeat it"
            ))),
            (false, _, _) => Failed::ForGood(Error::failed(why)),
        }
    }
}

/// Whether settings name an API and what opens it, without a flag.
///
/// # Errors
/// When the address or the token can't be used.
pub fn named(settings: &Settings) -> Result<(), Error> {
    Address::find(None, settings, settings.data_dir().ok().as_deref())?;
    authorities(None, settings)?;
    token::told(settings).map(drop)
}

fn trusting(own: &Authorities) -> TlsConfig {
    let certificates = own.certificates().map(|der| Certificate::from_der(der).to_owned());
    TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certificates.collect::<Vec<_>>())).build()
}

/// What to do about a server that speaks otherwise than it was spoken to, or shows a certificate that doesn't count. To ask
/// again doesn't help, and nothing was done: it heard nothing that it understood.
fn trouble(base: &str, error: &ureq::Error, reason: &str) -> Option<&'static str> {
    let secure = base.starts_with("https://");
    if secure && ["UnknownIssuer", "BadSignature"].iter().any(|why| reason.contains(why)) {
        Some("name the authority that its certificate is from with WINDLASS_CA_FILE")
    } else if secure && reason.contains("invalid peer certificate") {
        Some("its certificate must be for the name that WINDLASS_URL has")
    } else if secure && reason.contains("corrupt message") {
        Some("what is there speaks no HTTPS: is it an http:// address?")
    } else if !secure && matches!(error, ureq::Error::Protocol(_)) {
        Some("what is there speaks no HTTP: is it an https:// address?")
    } else {
        None
    }
}

/// `path` with these parameters, their values encoded.
pub fn with_query(path: &str, parameters: &[(&str, String)]) -> String {
    let pairs: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

/// Percent-encodes everything but the unreserved characters of RFC 3986.
pub fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests;

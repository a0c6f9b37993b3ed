//! Passes a command on to the coordinator that can do it, as it came, and that one's answer back.
//!
//! A command belongs to the owner of its job's shard, a submission to anybody who owns a shard. A request that isn't ours
//! is tried for a second in all: at the owner, and again when there is another one, or none yet. It is sent a second
//! time only where that does no harm, or where it certainly wasn't taken. One that was passed on once is never passed
//! on again, so that two coordinators that take each other for the owner don't play ball with it.

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName, TRANSFER_ENCODING,
};
use actix_web::{HttpRequest, HttpResponse};
use awc::error::{ConnectError, SendRequestError};
use awc::{Client, ClientRequest, Connector};
use bytes::Bytes;
use rustls::ClientConfig;
use shared::clock;
use shared::id::Shard;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Api;
use super::auth::PASSED_FROM;
use super::problem::{NOT_OURS, Problem};
use crate::holdings::{Holdings, Owners, Route};

/// How long a request that isn't ours is tried.
pub const TRY_FOR: Duration = Duration::from_secs(1);
/// How soon it is tried again where nobody has said that there is another owner.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The most connections of one thread to other coordinators.
const CONNECTIONS_MAX: usize = 256;
/// How long an idle connection to another coordinator is kept: less than that one keeps it.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// The most bytes of an answer: that to the largest batch, twice.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The header of a request that was passed on.
const PASSED_ON: HeaderName = HeaderName::from_static("windlass-passed-on");
/// The headers that go along.
const ALONG: [HeaderName; 4] = [AUTHORIZATION, CONTENT_TYPE, ACCEPT, HeaderName::from_static("idempotency-key")];
/// The headers of an answer that are between two neighbours.
const BETWEEN: [HeaderName; 4] = [CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH, DATE];

/// Who can do what a request asks for.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// The owner of that shard.
    Owner(Shard),
    /// Whoever owns a shard.
    Anyone,
}

/// What a request does when it is done a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Nothing more than the first time.
    Harmless,
    /// The same again.
    Doubles,
}

/// What became of one try at another coordinator.
#[derive(Debug)]
pub enum Tried {
    Answered {
        response: HttpResponse,
        body: Bytes,
    },
    /// Nothing was done there.
    NotTaken,
    /// Whether it was done there is unknown.
    Unknown,
}

/// The way to the other coordinators, one for each thread of the API.
#[derive(Clone)]
pub struct Passing {
    /// Its connections are used again. One that the other side has just closed loses a request without a word.
    kept: Client,
    /// Each of its connections carries one request.
    fresh: Client,
}

impl Passing {
    /// Without a connection yet; where an address is of HTTPS, `tls` says what is asked of it. Must be called on a thread of
    /// the API.
    pub fn new(tls: &Arc<ClientConfig>) -> Self {
        let client = |idle| {
            let connector = Connector::new().rustls_0_23(Arc::clone(tls));
            let connector = connector.limit(CONNECTIONS_MAX).timeout(TRY_FOR).conn_keep_alive(idle);
            Client::builder().connector(connector).disable_redirects().no_default_headers().disable_timeout().finish()
        };
        Self { kept: client(IDLE_MAX), fresh: client(Duration::ZERO) }
    }

    /// Sends a request as it came to the coordinator at `address`.
    pub async fn send(&self, address: &str, request: &HttpRequest, body: Bytes, repeat: Repeat) -> Tried {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let client = match repeat {
            Repeat::Harmless => &self.kept,
            Repeat::Doubles => &self.fresh,
        };
        let call = client.request(request.method().clone(), format!("{address}{path}"));
        answer(along(call, request), body).await
    }

    /// Sends `body` in the name of whoever made `request` to a path of the coordinator at `address`. It must be harmless
    /// to do that twice.
    pub async fn ask(&self, address: &str, path: &str, request: &HttpRequest, body: Bytes) -> Tried {
        answer(along(self.kept.post(format!("{address}{path}")), request), body).await
    }
}

/// Whether another coordinator has passed this request on to us.
pub fn is_passed_on(request: &HttpRequest) -> bool {
    request.headers().contains_key(PASSED_ON)
}

/// Does a request here, by `here`, or passes it on where that says that it isn't ours. What `repeat` holds counts after
/// each call of `here`.
pub async fn here_or_there(
    api: &Api,
    request: &HttpRequest,
    body: &Bytes,
    goal: Goal,
    repeat: &Cell<Repeat>,
    here: impl AsyncFn() -> Result<HttpResponse, Problem>,
) -> Result<HttpResponse, Problem> {
    let until = Instant::now() + TRY_FOR;
    let passing = request.app_data::<Passing>().ok_or_else(Problem::internal)?;
    let holdings = api.service.holdings();
    let mut owners = holdings.owners();
    loop {
        owners.mark_unchanged();
        let problem = match here().await {
            Err(problem) if problem.is_not_ours() && !is_passed_on(request) => problem,
            done => return done,
        };
        let tried = match route(holdings, goal) {
            Route::Here | Route::Nowhere => Tried::NotTaken,
            Route::To(address) => {
                let call = passing.send(&address, request, body.clone(), repeat.get());
                let call = async {
                    tokio::select! {
                        tried = call => tried,
                        () = left(holdings, &mut owners, goal, &address), if repeat.get() == Repeat::Harmless => Tried::Unknown,
                    }
                };
                timeout_at(until, call).await.unwrap_or(Tried::Unknown)
            }
        };
        match tried {
            Tried::Answered { response, body } => return Ok(response.set_body(body).map_into_boxed_body()),
            Tried::Unknown if repeat.get() == Repeat::Doubles => return Err(Problem::unknown_fate()),
            Tried::Unknown | Tried::NotTaken => {}
        }
        if !again(&mut owners, until).await {
            return Err(problem.given_up());
        }
    }
}

/// Waits until it is worth another try; false when there is no time left for one.
pub async fn again(owners: &mut watch::Receiver<Arc<Owners>>, until: Instant) -> bool {
    let next = (Instant::now() + LOOK_AGAIN).min(until);
    tokio::select! {
        Ok(()) = owners.changed() => {}
        () = sleep_until(next) => {}
    }
    Instant::now() < until
}

/// Where a request goes.
fn route(holdings: &Holdings, goal: Goal) -> Route {
    match goal {
        Goal::Owner(shard) => holdings.route(shard),
        Goal::Anyone if !holdings.shards().is_empty() => Route::Here,
        Goal::Anyone => {
            let owners = holdings.owners();
            let addresses = &owners.borrow().addresses;
            let [start] = clock::random();
            // Any of them will do, each as often as it owns shards.
            let mut owned = addresses.iter().cycle().skip(usize::from(start)).take(addresses.len()).flatten();
            owned.next().map_or(Route::Nowhere, |address| Route::To(Arc::clone(address)))
        }
    }
}

/// Returns when the shard's owner is no longer at `address`.
async fn left(holdings: &Holdings, owners: &mut watch::Receiver<Arc<Owners>>, goal: Goal, address: &Arc<str>) {
    loop {
        if owners.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let Goal::Owner(shard) = goal else { continue };
        if holdings.route(shard) != Route::To(Arc::clone(address)) {
            // Whoever waits next looks at once.
            owners.mark_changed();
            return;
        }
    }
}

fn along(call: ClientRequest, request: &HttpRequest) -> ClientRequest {
    let (peer, headers) = (request.peer_addr(), request.headers());
    let mut call = call.insert_header((PASSED_ON, "1"));
    if let Some(peer) = peer {
        call = call.insert_header((PASSED_FROM, peer.ip().to_string()));
    }
    for name in ALONG {
        for value in headers.get_all(&name) {
            call = call.append_header((name.clone(), value.clone()));
        }
    }
    call
}

async fn answer(call: ClientRequest, body: Bytes) -> Tried {
    let mut answer = match call.send_body(body).await {
        Ok(answer) => answer,
        Err(error) => {
            let tls = |error: &io::Error| error.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<rustls::Error>);
            if matches!(&error, SendRequestError::Connect(ConnectError::Io(error)) if tls(error)) {
                tracing::warn!(%error, "another coordinator's certificate isn't trusted: WINDLASS_CA_FILE names who is");
            }
            tracing::debug!(%error, "another coordinator doesn't answer");
            return if was_sent(&error) { Tried::Unknown } else { Tried::NotTaken };
        }
    };
    if answer.headers().contains_key(NOT_OURS) {
        return Tried::NotTaken;
    }
    let Ok(body) = answer.body().limit(ANSWER_BYTES_MAX).await else { return Tried::Unknown };
    let mut response = HttpResponse::new(answer.status());
    for (name, value) in answer.headers().iter().filter(|(name, _)| !BETWEEN.contains(name)) {
        response.headers_mut().append(name.clone(), value.clone());
    }
    Tried::Answered { response, body }
}

/// Whether the request may have arrived. A connection that is lost under it is called `Disconnected`.
fn was_sent(error: &SendRequestError) -> bool {
    match error {
        SendRequestError::Connect(ConnectError::Disconnected) => true,
        SendRequestError::Connect(_) | SendRequestError::Url(_) => false,
        _ => true,
    }
}

//! The HTTP API: what scripts, the command line and other coordinators speak to.
//!
//! It turns requests into calls of [`Service`] and its answers into JSON, and decides nothing about jobs itself.
//! [`serve`] runs it on threads of its own, so that it starts and stops inside any process, and inside a test.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::dev::{Server, ServerHandle, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::middleware::from_fn;
use actix_web::{App, Error, HttpServer, Resource, guard as accepts, web};
use tokio::sync::{Semaphore, watch};

use shared::tls::{self, Authorities};

use crate::keys;
use crate::service::{self, Service};
use crate::web as page;
use passing::Passing;

mod accept;
mod audit;
pub(crate) mod auth;
pub(crate) mod body;
pub(crate) mod cancel;
mod certificate;
pub(crate) mod cursor;
mod deploy_keys;
mod events;
mod explain;
pub(crate) mod filter;
#[cfg(feature = "faults")]
pub mod fuzzed;
mod guard;
mod health;
pub(crate) mod jobs;
pub(crate) mod logs;
mod mass_cancel;
mod openapi;
pub(crate) mod passing;
pub(crate) mod problem;
pub(crate) mod query;
pub mod rules;
mod sse;
mod stream;
mod tokens;
mod workers;

pub use auth::Tokens;
pub use certificate::{Certificate, Unusable};
pub(crate) use workers::view as worker_view;

/// The threads that answer requests. They wait for the store most of the time.
const THREADS: usize = 2;
/// The most connections of one of these threads; further ones wait to be accepted.
const CONNECTIONS_PER_THREAD_MAX: usize = 512;
/// How long the head of a connection's first request may take to arrive.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a connection stays open without a request.
const IDLE_TIME_MAX: Duration = Duration::from_secs(15);
/// How long a client whose request was refused unread may go on sending before the connection is closed. Closed at once,
/// it would lose the answer with it.
const LINGER_TIME_MAX: Duration = Duration::from_secs(2);
/// How long the service may take over one call. The store gives up much sooner: this is for what nobody thought of.
const CALL_TIME_MAX: Duration = Duration::from_secs(10);
/// When to come back after that.
const CALL_RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long requests that are under way at a stop may take.
const STOP_TIME_MAX_S: u64 = 5;

/// The running API. Dropped, it stops without waiting for what is under way.
pub struct ApiServer {
    address: SocketAddr,
    handle: ServerHandle,
    stopping: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
}

/// How the API is reached, and how it reaches that of others.
#[derive(Debug, Clone, Default)]
pub struct Transport {
    /// With it the API speaks HTTPS alone, without it HTTP.
    pub certificate: Option<Arc<Certificate>>,
    /// Whose certificates the other coordinators may have, in place of the public authorities'.
    pub authorities: Option<Authorities>,
}

/// What every route has at hand.
pub(crate) struct Api {
    pub(crate) service: Service,
    /// For each stream that may be open.
    streams: Arc<Semaphore>,
    /// For each KiB of a body that may be read.
    bodies: Semaphore,
    stopping: watch::Receiver<bool>,
}

/// Serves the API on `listener` over HTTP until it is stopped.
///
/// # Errors
/// When the listener can't be used or the threads can't be started.
pub fn serve(listener: TcpListener, service: Service, tokens: Tokens) -> io::Result<ApiServer> {
    serve_by(Transport::default(), listener, service, tokens)
}

/// The same by that transport.
///
/// # Errors
/// When the listener can't be used or the threads can't be started.
pub fn serve_by(
    transport: Transport,
    listener: TcpListener,
    service: Service,
    tokens: Tokens,
) -> io::Result<ApiServer> {
    let address = listener.local_addr()?;
    let (stopping, stopping_seen) = watch::channel(false);
    let (end, ended) = watch::channel(false);
    let tokens = web::Data::new(tokens.with(service.clone()));
    let api = web::Data::new(Api::new(service, stopping_seen));
    let (started, handle) = mpsc::sync_channel(1);
    let run = move || {
        let run = async {
            let server = match server(listener, api, tokens, transport) {
                Ok(server) => server,
                Err(error) => {
                    // Nobody waits for it only where `serve` itself is gone.
                    let _ = started.send(Err(error));
                    return Ok(());
                }
            };
            let _ = started.send(Ok(server.handle()));
            server.await
        };
        if let Err(error) = actix_web::rt::System::new().block_on(run) {
            tracing::error!(%error, "the API can't be served");
        }
        end.send_replace(true);
    };
    std::thread::Builder::new().name("api".to_owned()).spawn(run)?;
    let handle = handle.recv().map_err(|_| io::Error::other("the thread of the API ended at its start"))??;
    Ok(ApiServer { address, handle, stopping, ended })
}

impl ApiServer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests, ends the open streams, waits for what is under way, at most five seconds, and closes every
    /// connection. A second call waits for the same.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        self.handle.stop(true).await;
        // An error says that the thread is gone, which is what this waits for.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stopping.send_replace(true);
        drop(self.handle.stop(false));
    }
}

impl Api {
    /// What a call of the service answers, within [`CALL_TIME_MAX`].
    pub(crate) async fn ask<T>(
        &self,
        call: impl Future<Output = Result<T, service::Error>>,
    ) -> Result<T, service::Error> {
        let retry_after = CALL_RETRY_AFTER;
        tokio::time::timeout(CALL_TIME_MAX, call).await.unwrap_or(Err(service::Error::Unavailable { retry_after }))
    }

    /// The same of a call about deploy keys.
    async fn ask_for<T>(&self, call: impl Future<Output = Result<T, keys::Error>>) -> Result<T, keys::Error> {
        let late = || service::Error::Unavailable { retry_after: CALL_RETRY_AFTER }.into();
        tokio::time::timeout(CALL_TIME_MAX, call).await.unwrap_or_else(|_| Err(late()))
    }

    fn new(service: Service, stopping: watch::Receiver<bool>) -> Self {
        let streams = Arc::new(Semaphore::new(stream::STREAMS_MAX));
        Self { service, streams, bodies: Semaphore::new(body::BODIES_KIB_MAX), stopping }
    }
}

fn server(
    listener: TcpListener,
    api: web::Data<Api>,
    tokens: web::Data<Tokens>,
    transport: Transport,
) -> io::Result<Server> {
    let client = Arc::new(tls::client(transport.authorities.as_ref()).map_err(io::Error::other)?);
    let app = move || {
        let app = App::new().app_data(api.clone()).app_data(tokens.clone()).app_data(Passing::new(&client));
        app.wrap(from_fn(guard::guard)).configure(routes)
    };
    let server = HttpServer::new(app)
        .workers(THREADS)
        .max_connections(CONNECTIONS_PER_THREAD_MAX)
        .client_request_timeout(HEAD_TIME_MAX)
        .keep_alive(IDLE_TIME_MAX)
        .client_disconnect_timeout(LINGER_TIME_MAX)
        // A stream whose reader has gone must not wait for the next write to notice.
        .h1_allow_half_closed(false)
        .shutdown_timeout(STOP_TIME_MAX_S)
        .disable_signals();
    let server = match transport.certificate {
        Some(certificate) => server.listen_rustls_0_23(listener, certificate.served().map_err(io::Error::other)?)?,
        None => server.listen(listener)?,
    };
    Ok(server.run())
}

fn routes(app: &mut web::ServiceConfig) {
    let probe = || web::route().guard(accepts::Any(accepts::Get()).or(accepts::Head()));
    app.service(at("/healthz", "GET, HEAD").route(probe().to(health::alive)))
        .service(at("/readyz", "GET, HEAD").route(probe().to(health::ready)))
        .service(at("/api/openapi.json", "GET").route(web::get().to(openapi::describe)))
        .service(at("/api/v1/jobs", "GET, POST").route(web::get().to(jobs::list)).route(web::post().to(jobs::submit)))
        .service(at("/api/v1/jobs/cancel", "POST").route(web::post().to(mass_cancel::by_filter)))
        .service(at("/api/v1/jobs/{id}", "GET").route(web::get().to(jobs::show)))
        .service(at("/api/v1/jobs/{id}/events", "GET").route(web::get().to(events::show)))
        .service(at("/api/v1/jobs/{id}/explain", "GET").route(web::get().to(explain::show)))
        .service(at("/api/v1/jobs/{id}/logs", "GET").route(web::get().to(logs::show)))
        .service(at("/api/v1/jobs/{id}/cancel", "POST").route(web::post().to(cancel::one)))
        .service(at("/api/v1/jobs/{id}/retry", "POST").route(web::post().to(jobs::retry)))
        .service(at("/api/v1/workers", "GET").route(web::get().to(workers::list)))
        .service(at("/api/v1/workers/{id}/pause", "POST").route(web::post().to(workers::pause)))
        .service(at("/api/v1/workers/{id}/resume", "POST").route(web::post().to(workers::resume)))
        .service(at("/api/v1/workers/{id}/drain", "POST").route(web::post().to(workers::drain)))
        .service(at("/api/v1/workers/{id}/revoke", "POST").route(web::post().to(workers::revoke)))
        .service(
            at("/api/v1/tokens", "GET, POST").route(web::get().to(tokens::list)).route(web::post().to(tokens::create)),
        )
        .service(at("/api/v1/tokens/join", "POST").route(web::post().to(tokens::join)))
        .service(at("/api/v1/tokens/{id}", "DELETE").route(web::delete().to(tokens::revoke)))
        .service(at("/api/v1/audit", "GET").route(web::get().to(audit::list)))
        .service(at("/api/v1/deploy-keys", "GET").route(web::get().to(deploy_keys::list)))
        .service(
            at("/api/v1/deploy-keys/{name}", "GET, PUT, DELETE")
                .route(web::get().to(deploy_keys::show))
                .route(web::put().to(deploy_keys::put))
                .route(web::delete().to(deploy_keys::remove)),
        )
        .service(at("/api/v1/vault/rekey", "POST").route(web::post().to(deploy_keys::rekey)))
        .service(at(mass_cancel::BETWEEN_COORDINATORS, "POST").route(web::post().to(mass_cancel::by_ids)))
        .configure(page::routes)
        .default_service(web::to(page::lost));
}

/// A path with the methods that it has, for the answer to any other; around it stands what its rules say.
pub(crate) fn at(
    path: &'static str,
    methods: &'static str,
) -> Resource<
    impl ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<BoxBody>, Error = Error, InitError = ()>,
> {
    let other = move || async move { problem::Problem::no_method(methods).response() };
    let guard = from_fn(move |request, next| guard::authorize(path, methods, request, next));
    web::resource(path).default_service(web::to(other)).wrap(guard)
}

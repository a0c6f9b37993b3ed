//! The web page: what people see in a browser. Every page is rendered here, on the server, and works without a script but
//! for the log; the scripts in `web/assets/` keep it up to date and show the log.
//!
//! It decides nothing: it reads what the API reads, and its forms do what the API's routes do, under the same rules, the
//! same audit and the same guard. Nothing from a job is ever markup: `maud` escapes it, the scripts set text alone, and the
//! content security policy lets nothing run that isn't a file of ours.

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::header::{ACCEPT, AUTHORIZATION, LOCATION};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse, Resource, web};

use crate::api::at;
use crate::api::auth::Identity;
use crate::api::problem::Problem;

mod assets;
mod bar;
mod commands;
mod job;
mod jobs;
mod layout;
mod log;
mod sign_in;
mod timeline;
mod words;
mod workers;

/// The page's routes.
pub fn routes(app: &mut web::ServiceConfig) {
    for asset in &assets::ALL {
        app.service(
            at(asset.path, "GET")
                .route(web::get().to(async move |request: HttpRequest| assets::serve(&request, asset))),
        );
    }
    app.service(page("/sign-in", "GET, POST").route(web::get().to(sign_in::ask)).route(web::post().to(sign_in::enter)))
        .service(page("/sign-out", "POST").route(web::post().to(sign_in::leave)))
        .service(page("/", "GET").route(web::get().to(jobs::show)))
        .service(page("/jobs/{id}", "GET").route(web::get().to(job::show)))
        .service(page("/jobs/{id}/log.txt", "GET").route(web::get().to(log::download)))
        .service(at("/jobs/{id}/log-end", "GET").route(web::get().to(log::end)))
        .service(page("/jobs/{id}/cancel", "POST").route(web::post().to(commands::cancel)))
        .service(page("/jobs/{id}/retry", "POST").route(web::post().to(commands::retry)))
        .service(page("/workers", "GET").route(web::get().to(workers::show)))
        .service(page("/workers/{id}/pause", "POST").route(web::post().to(commands::pause)))
        .service(page("/workers/{id}/resume", "POST").route(web::post().to(commands::resume)))
        .service(page("/workers/{id}/drain", "POST").route(web::post().to(commands::drain)));
}

/// A path of the page: what goes wrong there is shown as a page.
fn page(
    path: &'static str,
    methods: &'static str,
) -> Resource<
    impl ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<BoxBody>, Error = Error, InitError = ()>,
> {
    at(path, methods).wrap(from_fn(with_pages))
}

async fn with_pages(request: ServiceRequest, next: Next<BoxBody>) -> Result<ServiceResponse<BoxBody>, Error> {
    let identity = request.extensions().get::<Identity>().cloned();
    let answer = next.call(request).await?;
    let problem = answer.response().error().and_then(|error| error.as_error::<Problem>()).cloned();
    Ok(match problem {
        Some(problem) => answer.into_response(layout::trouble(&problem, identity.as_ref())),
        None => answer,
    })
}

/// What a browser gets in place of a problem of who it is: the way to the sign-in, or a page. None where a program asks.
pub fn instead(request: &HttpRequest, problem: &Problem) -> Option<HttpResponse> {
    let path = request.path();
    let is_page = path == "/" || path == "/workers" || path.starts_with("/jobs/") || path.starts_with("/workers/");
    if !is_page || path.ends_with("/log-end") || request.headers().contains_key(AUTHORIZATION) {
        return None;
    }
    let status = problem.response().status();
    let reads = *request.method() == Method::GET;
    if status == StatusCode::UNAUTHORIZED && reads {
        let asked = request.uri().path_and_query().map_or("/", |asked| asked.as_str());
        return Some(see_other(&sign_in::address(asked)));
    }
    Some(layout::trouble(problem, None))
}

/// The answer at a path where nothing is.
pub async fn lost(request: HttpRequest) -> HttpResponse {
    let problem = Problem::no_route();
    let accepts = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    if request.path().starts_with("/api/") || !accepts.is_some_and(|accepts| accepts.contains("text/html")) {
        return problem.response();
    }
    let identity = request.extensions().get::<Identity>().cloned();
    layout::trouble(&problem, identity.as_ref())
}

/// Sends the browser to a page of ours, which it asks for with GET.
fn see_other(path: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((LOCATION, path)).finish()
}

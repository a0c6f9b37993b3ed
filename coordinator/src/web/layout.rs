//! What every page has around its own: the head, the way around, who is signed in; and the page for what went wrong.

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY};
use actix_web::{HttpResponse, HttpResponseBuilder};
use maud::{DOCTYPE, Markup, html};

use super::assets::{self, Asset};
use crate::api::auth::Identity;
use crate::api::problem::Problem;

/// Nothing but our own files, forms that go nowhere else, no frame around it, and no script may make markup of a text.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
     base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);
/// A form without a referrer would come without its origin as well, by which we know that it is ours.
const REFERRER: HeaderValue = HeaderValue::from_static("same-origin");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Where a page stands in the way around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Jobs,
    Workers,
    Elsewhere,
}

/// A page's own parts.
#[derive(Debug)]
pub struct Page<'a> {
    pub title: &'a str,
    pub place: Place,
    /// Who is signed in.
    pub identity: Option<&'a Identity>,
    pub scripts: &'a [&'static Asset],
    /// After how many milliseconds the page looks at itself again; never where it is none.
    pub refresh_ms: Option<u32>,
    pub content: Markup,
}

impl Page<'_> {
    /// The page as an answer.
    pub fn respond(&self, status: StatusCode) -> HttpResponse {
        self.finish(HttpResponse::build(status))
    }

    fn finish(&self, mut response: HttpResponseBuilder) -> HttpResponse {
        let headers = [(CONTENT_TYPE, HTML), (CONTENT_SECURITY_POLICY, POLICY), (REFERRER_POLICY, REFERRER)];
        for header in headers {
            response.insert_header(header);
        }
        response.body(self.markup().into_string())
    }

    fn markup(&self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) " · Windlass" }
                    link rel="stylesheet" href=(assets::STYLE.address());
                    link rel="icon" type="image/svg+xml" href=(assets::ICON.address());
                    @for script in self.scripts { script src=(script.address()) defer {} }
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    (self.header())
                    main #main tabindex="-1" data-refresh=[self.refresh_ms] { (self.content) }
                    p #notice role="status" {}
                }
            }
        }
    }

    fn header(&self) -> Markup {
        let current = |place| (self.place == place).then_some("page");
        html! {
            header.top {
                a.brand href="/" { img src=(assets::ICON.address()) alt="" width="24" height="24"; "Windlass" }
                @if let Some(identity) = self.identity {
                    nav aria-label="Pages" {
                        a href="/" aria-current=[current(Place::Jobs)] { "Jobs" }
                        a href="/workers" aria-current=[current(Place::Workers)] { "Workers" }
                    }
                    form.who method="post" action="/sign-out" {
                        span { (super::words::visible(&identity.name)) " " span.role { (identity.role) } }
                        button.quiet type="submit" { "Sign out" }
                    }
                }
            }
        }
    }
}

/// The page for what went wrong, with the status and the headers of the problem.
pub fn trouble(problem: &Problem, identity: Option<&Identity>) -> HttpResponse {
    let plain = problem.response();
    let page = Page {
        title: problem.title(),
        place: Place::Elsewhere,
        identity,
        scripts: &[],
        refresh_ms: None,
        content: html! {
            h1 { (problem.title()) }
            p.lead { (super::words::visible(problem.detail())) }
            p { a href="/" { "To the jobs" } }
        },
    };
    let mut response = HttpResponse::build(plain.status());
    for header in plain.headers() {
        response.insert_header(header);
    }
    page.finish(response)
}

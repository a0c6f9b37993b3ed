//! The page of one job: where it stands and why, where its time went, its log, and what may be done about it.

use std::cell::Cell;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use maud::{Markup, html};
use shared::id::Seq;
use shared::job::{Event, Job, StateName};
use shared::role::Role;
use shared::time::Time;
use shared::view::explanation::Explanation;

use super::layout::{Page, Place};
use super::{assets, bar, jobs, timeline, words};
use crate::api::Api;
use crate::api::auth::Identity;
use crate::api::jobs::job_id;
use crate::api::passing::{Goal, Repeat, here_or_there, is_passed_on};
use crate::api::problem::Problem;
use crate::facts::Elsewhere;

/// The most events that are shown: the last ones.
const EVENTS_MAX: u32 = 1000;
/// How often the page of a job that hasn't ended looks at itself again.
const REFRESH_MS: u32 = 1000;
/// The most characters of a commit.
const COMMIT_CHARS: usize = 12;
/// The most bytes of a reason for a cancel that the form takes.
const REASON_CHARS_MAX: usize = 1000;

/// Shows a job. Why it isn't running its owner knows best, so that one is asked for the page.
pub async fn show(
    request: HttpRequest,
    api: web::Data<Api>,
    identity: web::ReqData<Identity>,
) -> Result<HttpResponse, Problem> {
    let id = job_id(&request)?;
    let render = async |elsewhere| {
        let explanation = api.ask(api.service.explain(id, elsewhere)).await?;
        let job = api.ask(api.service.job(id)).await?;
        let after = Seq(job.seq.0.saturating_sub(u64::from(EVENTS_MAX)));
        let events = api.ask(api.service.events(id, after, EVENTS_MAX)).await?;
        let now = api.service.holdings().now();
        let is_live = !job.is_terminal();
        let title = words::title(&job.spec);
        let view = View { job: &job, events: &events, explanation: &explanation, now, role: identity.role };
        let page = Page {
            title: &title,
            place: Place::Jobs,
            identity: Some(&identity),
            scripts: &[&assets::PAGE, &assets::ANSI, &assets::LOG],
            refresh_ms: is_live.then_some(REFRESH_MS),
            content: view.show(&title),
        };
        Ok(page.respond(StatusCode::OK))
    };
    let here = async || render(Elsewhere::Refuse).await;
    let owner = Goal::Owner(id.shard());
    match here_or_there(&api, &request, &Bytes::new(), owner, &Cell::new(Repeat::Harmless), here).await {
        // A page without what its owner knows is better than none.
        Err(problem) if problem.may_pass() && !is_passed_on(&request) => render(Elsewhere::DoWithout).await,
        done => done,
    }
}

struct View<'a> {
    job: &'a Job,
    events: &'a [Event],
    explanation: &'a Explanation,
    now: Time,
    role: Role,
}

impl View<'_> {
    fn show(&self, title: &str) -> Markup {
        let job = self.job;
        let outcome = job.state.outcome().map(|outcome| outcome.to_string()).filter(|text| !text.is_empty());
        html! {
            p.back { a href="/" { "Jobs" } }
            div.head {
                h1 { bdi { (title) } }
                p #state role="status" aria-live="polite" { (jobs::badge(job.state.name())) }
                (self.actions())
            }
            @if let Some(outcome) = outcome { p.outcome.(job.state.name()) { bdi { (words::visible(&outcome)) } } }
            @else if !job.is_terminal() { p #explanation .lead { bdi { (words::visible(&self.explanation.summary)) } } }
            section.time aria-labelledby="time" {
                h2 #time { "Where the time went" }
                (bar::show(&bar::phases(self.events, self.now)))
            }
            (self.facts())
            (self.log())
            details #events {
                summary { "Timeline, " (words::counted(self.events.len(), "event")) }
                (timeline::show(self.events, self.events.first().is_none_or(|first| first.seq == Seq(1))))
            }
            details #spec {
                summary { "Specification" }
                // Secrets are in no specification.
                pre tabindex="0" aria-label="Specification" { (words::visible(&serde_json::to_string_pretty(&*job.spec).unwrap_or_default())) }
            }
        }
    }

    fn actions(&self) -> Markup {
        let path = format!("/jobs/{}", self.job.id);
        if self.role < Role::Submitter {
            return html! {};
        }
        html! {
            div.actions {
                @if self.job.is_terminal() {
                    form method="post" action=(format!("{path}/retry")) { button type="submit" { "Run again" } }
                } @else if self.job.state.name() == StateName::Canceling {
                    form method="post" action=(format!("{path}/cancel")) {
                        input type="hidden" name="force" value="true";
                        button.danger type="submit" { "Kill now" }
                    }
                } @else {
                    details.cancel #cancel {
                        summary.button.danger { "Cancel…" }
                        form method="post" action=(format!("{path}/cancel")) {
                            label for="reason" { "Reason, if you like" }
                            input #reason name="reason" maxlength=(REASON_CHARS_MAX) autocomplete="off";
                            label.check { input type="checkbox" name="force" value="true"; "Kill at once, without grace" }
                            button.danger type="submit" { "Cancel the job" }
                        }
                    }
                }
            }
        }
    }

    fn facts(&self) -> Markup {
        let job = self.job;
        let spec = &job.spec;
        html! {
            dl.facts {
                (fact("Job", &html! { code { (job.id) } }))
                @if let Some(repository) = &spec.repository {
                    div.wide { dt { "Repository" } dd { bdi { (words::visible(&repository.url)) } } }
                    @if let Some(reference) = &repository.reference { (fact("Ref", &html! { bdi { (words::visible(reference)) } })) }
                }
                @if let Some(commit) = &job.commit {
                    @let commit = String::from(commit.clone());
                    (fact("Commit", &html! { code title=(commit) { (words::cut(&commit, COMMIT_CHARS)) } }))
                }
                @if let Some(worker) = job.worker { (fact("Worker", &html! { a href=(format!("/workers#worker-{worker}")) { code { (worker) } } })) }
                (fact("Attempt", &html! { (job.attempt.0) " of at most " (spec.retry.max_attempts) }))
                (fact("Priority", &html! { (spec.priority.name()) }))
                (fact("Submitted", &words::when(job.created_at, self.now)))
                @if let Some(finished) = job.finished_at { (fact("Ended", &words::when(finished, self.now))) }
                @if let Some(first) = job.retry_of { (fact("Repeats", &html! { a href=(format!("/jobs/{first}")) { code { (first) } } })) }
                @if !spec.tags.is_empty() { div.wide { dt { "Tags" } dd { (jobs::tags(&spec.tags)) } } }
                @if !spec.labels.is_empty() { div.wide { dt { "Labels" } dd { (jobs::labels(job)) } } }
            }
        }
    }

    /// What the script turns into the log. Its own part of the page is left alone when the page looks at itself again.
    fn log(&self) -> Markup {
        let job = self.job;
        let download = format!("/jobs/{}/log.txt", job.id);
        let opens = match job.state.name() {
            StateName::Failed | StateName::Canceled => "end",
            StateName::Succeeded => "start",
            _ => "follow",
        };
        html! {
            section.log #log aria-labelledby="log-title" data-keep data-job=(job.id) data-attempt=(job.attempt.0) data-opens=(opens) {
                div.bar-of-log {
                    h2 #log-title { "Log" }
                    div.tools hidden {
                        label.attempt hidden { "Attempt " select #attempt {} }
                        button.quiet #to-start type="button" { "Start" }
                        button.quiet #to-end type="button" { "End" }
                        button #follow type="button" aria-pressed="false" { "Follow" }
                        form.find role="search" aria-label="Search the log" {
                            label.unseen for="find" { "Search the log" }
                            input #find type="search" placeholder="Search the log" autocomplete="off" spellcheck="false";
                            button.quiet #find-back type="button" aria-label="Find the one before" { "↑" }
                            button.quiet type="submit" aria-label="Find the next one" { "↓" }
                        }
                    }
                    a href=(download) download { "Download" }
                }
                p.said role="status" {}
                div.lines tabindex="0" role="region" aria-label="Lines of the log" hidden {}
                noscript { p.hint { "Without scripts the log can be downloaded." } }
            }
        }
    }
}

fn fact(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

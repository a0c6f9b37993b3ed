//! The page of the workers: how each is, how many of its slots are taken, and what it runs.

use std::collections::HashMap;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use maud::{Markup, html};
use shared::id::WorkerId;
use shared::job::{Job, StateName};
use shared::role::Role;
use shared::time::Time;
use shared::view::{WorkerState, WorkerView};
use shared::wire::WorkerMode;

use super::layout::{Page, Place};
use super::{assets, jobs, words};
use crate::api::auth::Identity;
use crate::api::problem::Problem;
use crate::api::{Api, worker_view};
use crate::store::Filter;

/// The most jobs of each state that are looked at: what runs beyond them is counted by the workers alone.
const JOBS_MAX: u32 = 500;
/// The most jobs that are named for one worker.
const NAMED_MAX: usize = 20;
/// The most workers that are shown.
const WORKERS_MAX: usize = 500;
/// How often the page looks at itself again.
const REFRESH_MS: u32 = 2000;
/// The states in which a worker holds a job.
const HELD: [StateName; 3] = [StateName::Running, StateName::Canceling, StateName::Assigned];

/// Shows the workers.
pub async fn show(api: web::Data<Api>, identity: web::ReqData<Identity>) -> Result<HttpResponse, Problem> {
    let workers = api.ask(api.service.workers()).await?;
    let now = api.service.holdings().now();
    let mut held: HashMap<WorkerId, Vec<Job>> = HashMap::new();
    for state in HELD {
        let filter = Filter { state: Some(state), ..Filter::default() };
        for job in api.ask(api.service.jobs(&filter, None, JOBS_MAX)).await? {
            if let Some(worker) = job.worker {
                held.entry(worker).or_default().push(job);
            }
        }
    }
    let mut views: Vec<WorkerView> = workers.iter().map(|worker| worker_view(worker, now)).collect();
    views.sort_by(|a, b| (rank(a.state), &a.name, a.id).cmp(&(rank(b.state), &b.name, b.id)));
    let (slots, running) = views
        .iter()
        .filter(|worker| rank(worker.state) == 0)
        .fold((0, 0), |(slots, running), one| (slots + u64::from(one.slots), running + u64::from(one.running)));
    let content = html! {
        h1 { "Workers" }
        @if views.is_empty() { p.empty { "No worker has enrolled yet. " code { "windlass token join" } " makes the token that one enrols with." } }
        @else { p.lead { (running) " of " (words::counted(usize::try_from(slots).unwrap_or(usize::MAX), "slot")) " of the workers that are heard are taken." } }
        ul.workers {
            @for worker in views.iter().take(WORKERS_MAX) {
                (card(worker, held.get(&worker.id).map_or(&[], Vec::as_slice), now, identity.role))
            }
        }
        @if views.len() > WORKERS_MAX { p.hint { "The first " (WORKERS_MAX) " of " (views.len()) " workers are shown; the API has all." } }
    };
    let page = Page {
        title: "Workers",
        place: Place::Workers,
        identity: Some(&identity),
        scripts: &[&assets::PAGE],
        refresh_ms: Some(REFRESH_MS),
        content,
    };
    Ok(page.respond(StatusCode::OK))
}

/// Those that are heard come first, those that never will be again last.
fn rank(state: WorkerState) -> u8 {
    match state {
        WorkerState::Active | WorkerState::Paused | WorkerState::Draining => 0,
        WorkerState::New | WorkerState::Silent => 1,
        WorkerState::Revoked => 2,
    }
}

fn card(worker: &WorkerView, held: &[Job], now: Time, role: Role) -> Markup {
    html! {
        li.card id=(format!("worker-{}", worker.id)) {
            div.head {
                h2 { bdi { (words::visible(&worker.name)) } }
                span.badge.(worker.state.name()) { (worker.state.name()) }
                @if role >= Role::Operator && worker.revoked_at.is_none() { (commands(worker)) }
            }
            p.hint { code { (worker.id) } @if let Some(seen) = worker.seen_at { ", heard " (words::when(seen, now)) } }
            @if worker.slots > 0 { (slots(worker)) }
            (jobs::tags(&worker.tags))
            @if !held.is_empty() {
                h3 { "Runs" }
                ul.held {
                    @for job in held.iter().take(NAMED_MAX) {
                        li { (jobs::badge(job.state.name())) " " a href=(format!("/jobs/{}", job.id)) { bdi { (words::title(&job.spec)) } } }
                    }
                    @if held.len() > NAMED_MAX { li.hint { "and " (held.len() - NAMED_MAX) " more" } }
                }
            }
        }
    }
}

fn slots(worker: &WorkerView) -> Markup {
    let taken = worker.running.min(worker.slots);
    html! {
        div.slots {
            svg.bar viewBox=(format!("0 0 {} 1", worker.slots)) preserveAspectRatio="none" aria-hidden="true" {
                rect.ran width=(taken) height="1" {}
            }
            span { b { (worker.running) } " of " (words::counted(usize::try_from(worker.slots).unwrap_or(usize::MAX), "slot")) " taken" }
        }
    }
}

fn commands(worker: &WorkerView) -> Markup {
    let all = match worker.mode {
        WorkerMode::Active => &[("pause", "Pause"), ("drain", "Drain")][..],
        WorkerMode::Paused => &[("resume", "Resume"), ("drain", "Drain")],
        WorkerMode::Draining => &[("resume", "Resume")],
    };
    html! {
        div.actions {
            @for (command, title) in all {
                form method="post" action=(format!("/workers/{}/{command}", worker.id)) {
                    button.quiet type="submit" aria-label=(format!("{title} {}", words::visible(&worker.name))) { (title) }
                }
            }
        }
    }
}

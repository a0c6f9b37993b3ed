//! The page of the jobs: a page of the list by the API's own conditions, the newest first.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use maud::{Markup, html};
use shared::id::JobId;
use shared::job::{Job, StateName};
use shared::time::Time;

use super::assets;
use super::commands::filled;
use super::layout::{Page, Place};
use super::words;
use crate::api::auth::Identity;
use crate::api::jobs::CURSOR_BYTES_MAX;
use crate::api::problem::Problem;
use crate::api::query::Query;
use crate::api::{Api, cursor, filter};
use crate::store::Filter;

/// The most jobs of a page.
const JOBS_MAX: u32 = 50;
/// How often the page looks at itself again.
const REFRESH_MS: u32 = 2000;
/// The most labels and tags of a row.
const WORDS_MAX: usize = 6;
/// The most characters of each.
const WORD_CHARS_MAX: usize = 40;

/// Shows the jobs.
pub async fn show(
    request: HttpRequest,
    api: web::Data<Api>,
    identity: web::ReqData<Identity>,
) -> Result<HttpResponse, Problem> {
    let [state, tag, repository, label] = filter::CONDITIONS;
    let raw = filled(request.query_string());
    let query = Query::read(&raw, &[state, tag, repository, label, "cursor"]);
    let filter = filter::read(&query);
    let before = query.text("cursor", CURSOR_BYTES_MAX).and_then(|text| {
        let before = cursor::decode(text, &filter);
        if before.is_none() {
            query.refuse("cursor", "is no cursor of this list with this filter");
        }
        before
    });
    query.finish()?;
    let mut jobs = api.ask(api.service.jobs(&filter, before, JOBS_MAX + 1)).await?;
    let more = jobs.len() > JOBS_MAX as usize;
    jobs.truncate(JOBS_MAX as usize);
    let older = jobs.last().filter(|_| more).map(|job| address(&filter, Some(job.id)));
    let list =
        List { jobs: &jobs, filter: &filter, now: api.service.holdings().now(), is_first: before.is_none(), older };
    let page = Page {
        title: "Jobs",
        place: Place::Jobs,
        identity: Some(&identity),
        scripts: &[&assets::PAGE],
        refresh_ms: Some(REFRESH_MS),
        content: list.show(),
    };
    Ok(page.respond(StatusCode::OK))
}

/// The page's address for these conditions.
fn address(filter: &Filter, after: Option<JobId>) -> String {
    let label = filter.label.as_ref().map(label_text);
    let given = [
        ("state", filter.state.map(|state| state.as_str().to_owned())),
        ("tag", filter.tag.clone()),
        ("repository", filter.repository.clone()),
        ("label", label),
        ("cursor", after.map(|id| cursor::encode(filter, id))),
    ];
    let pairs = given.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", words::encoded(&value?))));
    let query = pairs.collect::<Vec<_>>().join("&");
    if query.is_empty() { "/".to_owned() } else { format!("/?{query}") }
}

fn label_text((key, value): &(String, Option<String>)) -> String {
    value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}"))
}

struct List<'a> {
    jobs: &'a [Job],
    filter: &'a Filter,
    now: Time,
    is_first: bool,
    /// Where the next page is.
    older: Option<String>,
}

impl List<'_> {
    fn show(&self) -> Markup {
        html! {
            h1 { "Jobs" }
            (self.conditions())
            @if self.jobs.is_empty() {
                p.empty {
                    @if *self.filter == Filter::default() { "There is no job yet. Submit one with " code { "windlass job submit" } "." }
                    @else { "No job fits these conditions." }
                }
            } @else {
                table.jobs role="table" aria-label="Jobs, the newest first" {
                    thead role="rowgroup" {
                        tr role="row" {
                            @for head in ["State", "Job", "Repository", "Tags", "Age", "Took"] { th scope="col" role="columnheader" { (head) } }
                        }
                    }
                    tbody role="rowgroup" { @for job in self.jobs { (self.row(job)) } }
                }
            }
            nav.pages aria-label="Pages of the list" {
                @if !self.is_first { a href=(address(self.filter, None)) { "Newest" } }
                @if let Some(older) = &self.older { a href=(older) rel="next" { "Older" } }
            }
        }
    }

    fn conditions(&self) -> Markup {
        let Filter { state, tag, repository, label } = self.filter;
        let label = label.as_ref().map(label_text);
        let fields = [
            ("tag", "Tag", tag.as_ref(), "linux"),
            ("repository", "Repository", repository.as_ref(), "git@host:org/app.git"),
            ("label", "Label", label.as_ref(), "team=core"),
        ];
        html! {
            form.filter method="get" action="/" role="search" aria-label="Filter" data-keep {
                div.field {
                    label for="state" { "State" }
                    select #state name="state" {
                        option value="" { "any" }
                        @for name in StateName::ALL { option value=(name) selected[*state == Some(name)] { (name) } }
                    }
                }
                @for (name, title, value, example) in fields {
                    div.field.(name) {
                        label for=(name) { (title) }
                        input id=(name) name=(name) value=[value] placeholder=(example) autocomplete="off" spellcheck="false";
                    }
                }
                div.do {
                    button.primary type="submit" { "Filter" }
                    @if *self.filter != Filter::default() { a href="/" { "Clear" } }
                }
            }
        }
    }

    fn row(&self, job: &Job) -> Markup {
        let spec = &job.spec;
        let repository = spec.repository.as_ref().map(|repository| {
            let url = words::visible(&repository.url);
            repository
                .reference
                .as_ref()
                .map_or_else(|| url.to_string(), |at| format!("{url} @ {}", words::visible(at)))
        });
        html! {
            tr role="row" id=(format!("job-{}", job.id)) {
                td.state role="cell" { (badge(job.state.name())) }
                td.job role="cell" {
                    a href=(format!("/jobs/{}", job.id)) { bdi { (words::title(spec)) } }
                    @if spec.steps.len() > 1 { span.hint { " " (words::counted(spec.steps.len(), "step")) } }
                    (labels(job))
                }
                td.repository role="cell" { @if let Some(text) = repository { bdi title=(text) { (text) } } }
                td.tags role="cell" { (tags(&spec.tags)) }
                td.age role="cell" { (words::when(job.created_at, self.now)) }
                td.took role="cell" { @if let Some(text) = took(job, self.now) { (text) } }
            }
        }
    }
}

/// A state as a word, with its colour.
pub fn badge(state: StateName) -> Markup {
    html! { span.badge.(state) { (state) } }
}

/// How long the job's last attempt has run.
fn took(job: &Job, now: Time) -> Option<String> {
    let started = job.started_at?;
    let is_live = matches!(job.state.name(), StateName::Running | StateName::Canceling);
    let end = job.finished_at.or(is_live.then_some(now))?;
    Some(words::length(end.since(started)))
}

/// The labels of a job, each a way to those that have it.
pub fn labels(job: &Job) -> Markup {
    let all = &job.spec.labels;
    html! {
        @if !all.is_empty() {
            ul.words aria-label="Labels" {
                @for (key, value) in all.iter().take(WORDS_MAX) {
                    @let text = words::visible(&format!("{key}={value}")).into_owned();
                    @let filter = Filter { label: Some((key.clone(), Some(value.clone()))), ..Filter::default() };
                    li { a.word href=(address(&filter, None)) title=(words::cut(&text, 200)) { bdi { (words::cut(&text, WORD_CHARS_MAX)) } } }
                }
                @if all.len() > WORDS_MAX { li.hint { "+" (all.len() - WORDS_MAX) } }
            }
        }
    }
}

/// Tags, each a way to the jobs that have it.
pub fn tags(all: &[String]) -> Markup {
    html! {
        @if !all.is_empty() {
            ul.words aria-label="Tags" {
                @for tag in all.iter().take(WORDS_MAX) {
                    @let filter = Filter { tag: Some(tag.clone()), ..Filter::default() };
                    li { a.word href=(address(&filter, None)) title=(tag) { (words::cut(tag, WORD_CHARS_MAX)) } }
                }
                @if all.len() > WORDS_MAX { li.hint { "+" (all.len() - WORDS_MAX) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_conditions_that_are_given() {
        assert_eq!(address(&Filter::default(), None), "/");
        let some = |text: &str| Some(text.to_owned());
        let filter = Filter {
            state: Some(StateName::Running),
            tag: some("a:b"),
            repository: None,
            label: Some(("team".to_owned(), some("c&d"))),
        };
        assert_eq!(address(&filter, None), "/?state=running&tag=a%3Ab&label=team%3Dc%26d");
    }
}

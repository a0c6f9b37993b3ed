//! The routes that stop many jobs: all that a filter lets through, and, between coordinators, all of a list of ids.
//!
//! The ids are found page by page, and each page's are handed out to their owners as ordinary cancels, in one request for
//! each coordinator. While one page is being canceled the next is read and canceled too, so that there is always something to
//! commit. Whatever of a page isn't taken within a second, because an owner is gone or can't keep up, ends the
//! whole with 503: what was taken by then stays taken, and repeating the request cancels the rest. So the answer 202
//! says that every job that matched when its page was read is being stopped.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::id::{Actor, JobId};
use shared::job::Cancel;
use shared::spec::reader::{Node, Object};
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use super::cancel::reason;
use super::passing::{Passing, TRY_FOR, Tried, again};
use super::problem::Problem;
use super::query::Query;
use super::{Api, body, filter};
use crate::holdings::Route;
use crate::service::{CANCELS_MAX, OPEN_JOBS_MAX};
use crate::store::Filter;

/// Where coordinators hand each other cancels. It asks for the token of whoever wanted them, like every other route.
pub const BETWEEN_COORDINATORS: &str = "/internal/cancel";

/// How many pages are being canceled at a time.
const PAGES_AT_ONCE: usize = 2;

/// How many jobs a cancel was for.
#[derive(Serialize, ToSchema)]
pub struct Matched {
    matched: u64,
}

/// Cancels that one coordinator hands another.
#[derive(Serialize)]
struct Batch<'a> {
    ids: &'a [JobId],
    reason: Option<&'a str>,
}

/// Those of a batch that were not taken, and may be tried again.
#[derive(Serialize, Deserialize)]
struct Left {
    left: Vec<JobId>,
}

/// Stops every job that the filter lets through and that has not ended.
#[utoipa::path(
    post, path = "/api/v1/jobs/cancel", tag = "jobs", request_body = super::openapi::CancelMany,
    responses(
        (status = 202, description = "How many jobs matched; all of them are being stopped", body = Matched),
        (status = 503, description = "Not all of them could be reached; repeating it stops the rest", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn by_filter(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Actor>,
) -> Result<HttpResponse, Problem> {
    Query::read(request.query_string(), &[]).finish()?;
    let body = body::read(&request, payload, &api).await?;
    let (filter, why) = filtered(body.require()?)?;
    let cancel = Cancel { by: by.into_inner(), why, force: false, grace: None };
    let (api, request, filter, cancel) = (&**api, &request, &filter, &cancel);
    let halted = &Cell::new(false);
    let pages = stream::try_unfold(Some(None), |from: Option<Option<JobId>>| async move {
        let Some(after) = from.filter(|_| !halted.get()) else { return Ok::<_, Problem>(None) };
        let ids = api.ask(api.service.open_jobs(filter, after)).await?;
        let next = ids.last().copied().filter(|_| ids.len() == OPEN_JOBS_MAX).map(Some);
        Ok(Some((ids, next)))
    });
    let stopped = pages.map_ok(|ids| async move {
        let asked = ids.len() as u64;
        let left = page(api, request, ids, cancel).await?.len() as u64;
        halted.set(halted.get() || left > 0);
        Ok((asked, left))
    });
    let mut stopped = pin!(stopped.try_buffered(PAGES_AT_ONCE));
    let (mut matched, mut left) = (0, 0);
    while let Some((of_page, left_of_page)) = stopped.try_next().await? {
        matched += of_page;
        left += left_of_page;
    }
    if left > 0 {
        Err(Problem::half_done(matched - left, left))
    } else {
        Ok(HttpResponse::Accepted().json(Matched { matched }))
    }
}

/// Stops those of a list of jobs that are ours.
pub async fn by_ids(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Actor>,
) -> Result<HttpResponse, Problem> {
    let body = body::read(&request, payload, &api).await?;
    let (ids, why) = listed(body.require()?)?;
    let cancel = Cancel { by: by.into_inner(), why, force: false, grace: None };
    let left = api.ask(api.service.cancel_all(ids, &cancel)).await?;
    Ok(HttpResponse::Ok().json(Left { left }))
}

/// Hands a page of cancels out to the jobs' owners; returns those that were not taken within [`TRY_FOR`].
async fn page(api: &Api, request: &HttpRequest, ids: Vec<JobId>, cancel: &Cancel) -> Result<Vec<JobId>, Problem> {
    let until = Instant::now() + TRY_FOR;
    let passing = request.app_data::<Passing>().ok_or_else(Problem::internal)?;
    let mut owners = api.service.holdings().owners();
    let mut left = ids;
    loop {
        owners.mark_unchanged();
        let (mut ours, mut theirs, mut nobodys) = (Vec::new(), BTreeMap::<Arc<str>, Vec<JobId>>::new(), Vec::new());
        for id in left {
            match api.service.route(id) {
                Route::Here => ours.push(id),
                Route::To(address) => theirs.entry(address).or_default().push(id),
                Route::Nowhere => nobodys.push(id),
            }
        }
        let here = api.ask(api.service.cancel_all(ours, cancel));
        let there = join_all(theirs.into_iter().map(async |(address, ids)| {
            let batch = Batch { ids: &ids, reason: cancel.why.as_deref() };
            let body = Bytes::from(serde_json::to_vec(&batch).unwrap_or_default());
            let call = passing.ask(&address, BETWEEN_COORDINATORS, request, body);
            left_there(timeout_at(until, call).await.unwrap_or(Tried::Unknown)).unwrap_or(ids)
        }));
        let (here, there) = tokio::join!(here, there);
        left = [here?, there.concat(), nobodys].concat();
        if left.is_empty() || !again(&mut owners, until).await {
            return Ok(left);
        }
    }
}

/// What another coordinator has left over; none where it hasn't said.
fn left_there(tried: Tried) -> Option<Vec<JobId>> {
    match tried {
        Tried::Answered { response, body } if response.status() == StatusCode::OK => left(&body),
        Tried::Answered { .. } | Tried::NotTaken | Tried::Unknown => None,
    }
}

/// The jobs that another coordinator says are left, if that is what it says.
pub fn left(answer: &[u8]) -> Option<Vec<JobId>> {
    serde_json::from_slice::<Left>(answer).ok().map(|answer| answer.left)
}

/// Which jobs a body asks to cancel, and why.
pub fn filtered(body: Value) -> Result<(Filter, Option<String>), Problem> {
    body::fields(Some(body), |fields| {
        let why = reason(fields);
        let node = fields.require("filter")?;
        let conditions = node.nested()?;
        let filter = filter::read(&conditions);
        conditions.finish();
        if node.value.as_object().is_some_and(|given| given.values().all(Value::is_null)) {
            node.refuse("must have a condition: nothing cancels every job at once");
        }
        Some((filter, why))
    })
}

/// The ids in the body of another coordinator, and why they are to be canceled.
pub fn listed(body: Value) -> Result<(Vec<JobId>, Option<String>), Problem> {
    body::fields(Some(body), |fields| {
        let why = reason(fields);
        let ids = fields.require("ids")?.array(1, CANCELS_MAX)?;
        Some((ids.iter().map(Node::parsed).collect::<Option<Vec<JobId>>>()?, why))
    })
}

impl filter::Source for Object<'_> {
    fn condition<T>(&self, name: &'static str, bytes_max: usize, read: fn(&str) -> Result<T, String>) -> Option<T> {
        let node = self.get(name)?;
        let value = read(node.text(bytes_max)?);
        value.inspect_err(|fault| node.refuse(fault)).ok()
    }
}

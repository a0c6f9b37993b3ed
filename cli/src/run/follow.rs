//! Follows one job through the service to its end, and passes on the wish to stop it: the first signal cancels, each
//! further one forces.

use std::time::Duration;

use coordinator::service::{self, Service};
use shared::id::{Actor, JobId, Seq};
use shared::job::{Cancel, Event, EventKind};
use shared::spec::Submission;
use tokio::time::Instant;

use super::screen::Screen;
use crate::exit::Error;
use crate::signals::Signals;
use crate::timeline::{self, Timeline};

/// The most events that are read at once.
const EVENTS_MAX: u32 = 100;
/// How often something that the service can't do right now is tried; its waits of up to a second bound the whole.
const TRIES_MAX: u32 = 30;
/// How long after its time, its grace included, a job's end may be missing: the coordinator ends it itself 5 s after that.
const OVERDUE_AFTER: Duration = Duration::from_secs(10);
/// The longest wait between two tries.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// How the following ended.
pub enum End {
    /// With the job's last event.
    Told { event: Box<Event>, timeline: Timeline },
    /// The job's time passed long ago, and no end of it could be committed.
    Overdue,
    /// Whoever interrupts us doesn't want to wait for the job's end.
    GivenUp,
}

/// A job that is followed.
pub struct Followed<'a> {
    pub id: JobId,
    /// Its command, for people.
    pub label: &'a str,
    /// How long an attempt may take, its grace included.
    pub within: Duration,
    /// Whether it was to be stopped before it was there.
    pub interrupted: bool,
}

/// Follows a job until it is terminal.
///
/// # Errors
/// When the service has failed for good.
pub async fn to_the_end(
    service: &Service,
    Followed { id, label, within, interrupted }: Followed<'_>,
    signals: &mut Signals,
    screen: &Screen,
) -> Result<End, Error> {
    let mut watch = service.watch(id);
    let mut seen = Seq::default();
    let mut timeline = Timeline::default();
    let (mut stopping, mut forcing) = (interrupted, false);
    let mut overdue: Option<Instant> = None;
    if interrupted {
        stop(service, id, "interrupted", false);
    }
    loop {
        let next = async {
            let events = patiently(|| service.events(id, seen, EVENTS_MAX)).await?;
            if events.is_empty() {
                watch.changed().await;
            }
            Ok::<_, Error>(events)
        };
        tokio::select! {
            events = next => for event in events? {
                seen = event.seq;
                timeline.add(&event);
                match event.kind {
                    EventKind::Succeeded {} | EventKind::Failed { .. } | EventKind::Canceled { .. } => {
                        return Ok(End::Told { event: Box::new(event), timeline });
                    }
                    // The worker is in this process and free: a job that stays queued can't be stored any more.
                    EventKind::Queued { .. } | EventKind::Assigned { .. } => {
                        overdue = Some(Instant::now() + within + OVERDUE_AFTER);
                    }
                    EventKind::Scheduled { .. } | EventKind::Blocked { .. } => overdue = None,
                    _ => {}
                }
                show(screen, &event, label);
            },
            () = signals.next() => {
                if forcing {
                    return Ok(End::GivenUp);
                }
                screen.line(if stopping { "forcing; Ctrl-C again gives up" } else { "canceling; Ctrl-C again forces" });
                stop(service, id, "interrupted", stopping);
                (stopping, forcing) = (true, stopping);
            }
            () = screen.output_closed(), if !stopping => {
                stop(service, id, "nobody reads its output any more", false);
                stopping = true;
            }
            () = tokio::time::sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => {
                return Ok(End::Overdue);
            }
        }
    }
}

/// Submits the job and returns its id.
///
/// # Errors
/// When the service refuses it.
pub async fn submit(service: &Service, submission: Submission) -> Result<JobId, Error> {
    let by = caller();
    let accepted = patiently(|| service.submit(&by, vec![submission.clone()])).await?;
    let first = accepted.into_iter().next().ok_or_else(|| Error::failed("the job was not accepted"))?;
    Ok(first.job.id)
}

/// Cancels the job; `force` skips its grace.
///
/// # Errors
/// When the service can't.
pub async fn cancel(service: &Service, id: JobId, why: &str, force: bool) -> Result<(), service::Error> {
    let cancel = Cancel { by: caller(), why: Some(why.to_owned()), force, grace: None };
    patiently(|| service.cancel(id, cancel.clone())).await.map(|_| ())
}

/// Does `what`, again where it can't be done right now.
///
/// # Errors
/// When it can't be done at all, or not in [`TRIES_MAX`] tries.
pub async fn patiently<T, F>(what: impl Fn() -> F) -> Result<T, service::Error>
where
    F: Future<Output = Result<T, service::Error>>,
{
    for _ in 1..TRIES_MAX {
        match what().await {
            Err(service::Error::Busy { retry_after } | service::Error::Unavailable { retry_after }) => {
                tracing::warn!("the coordinator is not available right now; trying again");
                tokio::time::sleep(retry_after.min(WAIT_MAX)).await;
            }
            done => return done,
        }
    }
    what().await
}

/// Cancels on the side: the next signal must not wait for this one's answer.
fn stop(service: &Service, id: JobId, why: &'static str, force: bool) {
    let service = service.clone();
    tokio::spawn(async move {
        if let Err(error) = cancel(&service, id, why, force).await {
            tracing::error!("canceling the job: {error}");
        }
    });
}

fn show(screen: &Screen, event: &Event, label: &str) {
    match &event.kind {
        EventKind::StepStarted { .. } => screen.state(format!("running {label}")),
        EventKind::Assigned { .. } => screen.state("assigned".to_owned()),
        EventKind::Queued { .. } | EventKind::Scheduled { .. } | EventKind::Blocked { .. } => {
            screen.state(timeline::words(event));
        }
        EventKind::KeyTry { .. } | EventKind::Canceling { .. } => {
            screen.state(timeline::words(event));
        }
        EventKind::Declined { .. } | EventKind::WorkerLost { .. } | EventKind::Retried { .. } => {
            screen.line(&timeline::words(event));
        }
        // The worker says itself, and more exactly, what it has checked out.
        EventKind::CheckedOut { .. } => {}
        EventKind::Submitted { .. } | EventKind::Started {} | EventKind::StepFinished { .. } => {}
        EventKind::CancelRequested { .. } | EventKind::LateReport { .. } => {}
        EventKind::Succeeded {} | EventKind::Failed { .. } | EventKind::Canceled { .. } => {}
    }
}

fn caller() -> Actor {
    Actor::Client("run".to_owned())
}

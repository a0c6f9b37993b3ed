//! An answer that goes on while its job does: pages of a [`Feed`], one after the other, at the pace of whoever reads.
//!
//! Nothing is buffered beyond one page, and nothing runs for it in the background: what the client doesn't read isn't
//! fetched. The stream ends with its feed, at the limit that was asked for, when the server stops, and when its reader's token
//! counts no more.

use std::convert::Infallible;
use std::time::Duration;

use actix_web::http::header::{HeaderMap, HeaderValue};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::watch;
use tokio::time::Interval;

use super::auth::Pass;
use super::problem::Problem;
use super::{Api, query};
use crate::service::Error;

/// The most streams that are open at a time. Each looks at the store once a second.
pub const STREAMS_MAX: usize = 256;
/// The most items of one page of a stream: short lines come in thousands, and each page looks at the store.
const PAGE_MAX: u32 = 10_000;
/// From one sign of life to the next where nothing happens: below the minute after which proxies give up.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// When to come back after all streams were taken.
const RETRY_AFTER: Duration = Duration::from_secs(5);

const LAST_EVENT_ID: &str = "Last-Event-ID";

/// What is streamed, in the form in which it is sent.
pub trait Feed: 'static {
    /// At most `limit` items after number `after`.
    async fn page(&mut self, after: u64, limit: u32) -> Result<Page, Error>;

    /// Resolves when there may be more.
    async fn changed(&mut self);

    /// The last words of a stream that ends before its feed; empty where the form needs none.
    fn broken_off(&self, why: &str) -> String;

    /// A sign of life that a reader passes over; none where the form has no such thing.
    fn keep_alive(&self) -> Option<&'static str>;

    /// The media type.
    fn media_type(&self) -> &'static str;
}

/// A piece of a feed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Page {
    /// The items, ready to be sent.
    pub text: String,
    pub count: u32,
    /// The number of the last item.
    pub last: u64,
    /// The last words, where nothing follows the items and never will.
    pub end: Option<String>,
}

/// Which part of a feed is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// The number after which it begins.
    pub after: u64,
    /// The most items; all where it is none.
    pub limit: Option<u32>,
    /// Whether to wait for more until the feed ends.
    pub follow: bool,
}

/// The answer that streams `feed`.
pub fn respond(api: &Api, request: &HttpRequest, feed: impl Feed, range: Range) -> Result<HttpResponse, Problem> {
    let permit = api.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::busy("too many streams are open", RETRY_AFTER))?;
    let media_type = HeaderValue::from_static(feed.media_type());
    let pass = request.extensions().get::<Pass>().cloned().ok_or_else(Problem::internal)?;
    let tail = Tail::new(feed, range, KEEP_ALIVE, api.stopping.clone(), pass);
    let chunks = stream::unfold((tail, permit), |(mut tail, permit)| async move {
        let chunk = tail.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), (tail, permit)))
    });
    Ok(HttpResponse::Ok().content_type(media_type).insert_header(("X-Accel-Buffering", "no")).streaming(chunks))
}

/// The number in the header with which a reader of server-sent events goes on where it was cut off.
pub fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let number = value.to_str().ok().filter(|text| !text.is_empty()).and_then(query::whole_number);
    let number = number.filter(|number| *number <= query::NUMBER_MAX);
    let refused = || Problem::malformed(LAST_EVENT_ID, "must be the id of an event of this stream: a whole number");
    number.map(Some).ok_or_else(refused)
}

/// A stream on its way.
struct Tail<F> {
    feed: F,
    range: Range,
    keep_alive: Interval,
    stopping: watch::Receiver<bool>,
    /// What its reader was let in with.
    pass: Pass,
    ended: bool,
}

impl<F: Feed> Tail<F> {
    fn new(feed: F, range: Range, keep_alive: Duration, stopping: watch::Receiver<bool>, pass: Pass) -> Self {
        let mut keep_alive = tokio::time::interval(keep_alive);
        // The first sign of life is due after the interval, not at once.
        keep_alive.reset();
        Self { feed, range, keep_alive, stopping, pass, ended: false }
    }

    /// The next piece, never an empty one: that would end the answer.
    async fn next(&mut self) -> Option<String> {
        while !self.ended && self.range.limit != Some(0) {
            if *self.stopping.borrow() {
                return self.last_words(self.feed.broken_off("the server is stopping"));
            }
            if !self.pass.counts() {
                return self.last_words(self.feed.broken_off("the token counts no more"));
            }
            let limit = self.range.limit.map_or(PAGE_MAX, |left| left.min(PAGE_MAX));
            match self.feed.page(self.range.after, limit).await {
                Err(error) => return self.last_words(self.feed.broken_off(&error.to_string())),
                Ok(page) if page.count > 0 => {
                    self.range.after = page.last;
                    self.range.limit = self.range.limit.map(|left| left.saturating_sub(page.count));
                    self.keep_alive.reset();
                    return Some(page.text);
                }
                Ok(Page { end: Some(end), .. }) => return self.last_words(end),
                Ok(_) if !self.range.follow => return None,
                Ok(_) => {
                    if let Some(sign) = self.wait().await {
                        return Some(sign.to_owned());
                    }
                }
            }
        }
        None
    }

    fn last_words(&mut self, words: String) -> Option<String> {
        self.ended = true;
        Some(words).filter(|words| !words.is_empty())
    }

    /// Waits for more; what it returns is to be sent meanwhile.
    async fn wait(&mut self) -> Option<&'static str> {
        tokio::select! {
            () = self.feed.changed() => None,
            _ = self.keep_alive.tick() => self.feed.keep_alive(),
            // Without its sender the server is gone as well.
            _ = self.stopping.wait_for(|stopping| *stopping) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderName;
    use std::collections::VecDeque;
    use std::future::pending;

    /// A feed of prepared answers; after the last of them nothing ever changes.
    struct Scripted(VecDeque<Result<Page, Error>>);

    impl Feed for Scripted {
        async fn page(&mut self, after: u64, limit: u32) -> Result<Page, Error> {
            match self.0.pop_front() {
                Some(Ok(page)) if page.count > 0 => Ok(Page { text: format!("{}|{after}|{limit}", page.text), ..page }),
                Some(page) => page,
                None => Ok(Page::default()),
            }
        }

        async fn changed(&mut self) {
            if self.0.is_empty() {
                pending::<()>().await;
            }
        }

        fn broken_off(&self, why: &str) -> String {
            format!("broken: {why}")
        }

        fn keep_alive(&self) -> Option<&'static str> {
            Some("alive")
        }

        fn media_type(&self) -> &'static str {
            "text/plain"
        }
    }

    struct Story {
        tail: Tail<Scripted>,
        stopping: watch::Sender<bool>,
    }

    impl Story {
        fn of(pages: impl IntoIterator<Item = Page>, range: Range) -> Self {
            let (stopping, seen) = watch::channel(false);
            Self {
                tail: Tail::new(
                    Scripted(pages.into_iter().map(Ok).collect()),
                    range,
                    Duration::from_hours(1),
                    seen,
                    Pass::for_ever(),
                ),
                stopping,
            }
        }

        async fn all(mut self) -> Vec<String> {
            let mut pieces = Vec::new();
            while let Some(piece) = self.tail.next().await {
                pieces.push(piece);
            }
            pieces
        }
    }

    const FOLLOW: Range = Range { after: 3, limit: None, follow: true };

    fn items(count: u32, last: u64) -> Page {
        Page { text: format!("{count} items"), count, last, end: None }
    }

    fn end(words: &str) -> Page {
        Page { end: Some(words.to_owned()), ..Page::default() }
    }

    #[actix_web::test]
    async fn a_stream_goes_on_where_it_was_and_says_its_last_words() {
        let waiting = Page::default();
        let story = Story::of([items(100, 200), waiting, items(2, 203), end("the end")], FOLLOW);
        assert_eq!(story.all().await, ["100 items|3|10000", "2 items|200|10000", "the end"]);
    }

    #[actix_web::test]
    async fn no_piece_is_empty() {
        assert!(Story::of([end("")], FOLLOW).all().await.is_empty());
    }

    #[actix_web::test]
    async fn a_stream_that_does_not_follow_ends_with_what_is_there() {
        let story = Story::of([items(1, 4), Page::default()], Range { follow: false, ..FOLLOW });
        assert_eq!(story.all().await, ["1 items|3|10000"]);
    }

    #[actix_web::test]
    async fn a_limit_ends_the_stream_without_last_words() {
        let story = Story::of([items(100, 103), items(20, 123), end("the end")], Range { limit: Some(120), ..FOLLOW });
        assert_eq!(story.all().await, ["100 items|3|120", "20 items|103|20"]);
    }

    #[actix_web::test]
    async fn a_failure_breaks_the_stream_off() {
        let mut story = Story::of([items(1, 4)], FOLLOW);
        story.tail.feed.0.extend([Err(Error::Internal), Ok(items(1, 5))]);
        assert_eq!(story.all().await, ["1 items|3|10000", "broken: an internal error"]);
    }

    #[actix_web::test]
    async fn a_stop_breaks_a_waiting_stream_off() {
        let story = Story::of([items(1, 4)], FOLLOW);
        let stopping = story.stopping.clone();
        let stop = async move {
            tokio::task::yield_now().await;
            stopping.send_replace(true);
        };
        let both = async { tokio::join!(story.all(), stop) };
        let (pieces, ()) = tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
        assert_eq!(pieces, ["1 items|3|10000", "broken: the server is stopping"]);
    }

    #[actix_web::test]
    async fn a_quiet_stream_gives_signs_of_life() {
        let mut story = Story::of([], FOLLOW);
        story.tail.keep_alive = tokio::time::interval(Duration::from_millis(1));
        assert_eq!(story.tail.next().await.as_deref(), Some("alive"));
        assert_eq!(story.tail.next().await.as_deref(), Some("alive"));
    }

    #[test]
    fn the_last_id_is_a_whole_number() {
        let id = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static("last-event-id"), HeaderValue::from_static(text));
            last_event_id(&headers).ok().flatten()
        };
        assert_eq!(id("17"), Some(17));
        for garbage in ["", "x", "-1", "+1", "1.5", "9223372036854775808"] {
            assert_eq!(id(garbage), None, "{garbage}");
        }
        assert_eq!(last_event_id(&HeaderMap::new()), Ok(None));
    }
}

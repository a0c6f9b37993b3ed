//! What actix 0.13 does. The coordinator's actors are shaped by these facts: a release that changes one must be noticed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, Addr, AtomicResponse, Context, Handler, MailboxError, Message, ResponseActFuture,
    Supervised, Supervisor, WrapFuture,
};
use tokio::sync::oneshot;

/// An actor that writes down what happens to it.
#[derive(Default)]
struct Witness {
    seen: Arc<Mutex<Vec<String>>>,
    capacity: Option<usize>,
}

impl Actor for Witness {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        if let Some(capacity) = self.capacity {
            ctx.set_mailbox_capacity(capacity);
        }
        self.seen.lock().unwrap().push("started".to_owned());
    }
}

impl Supervised for Witness {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.seen.lock().unwrap().push("restarting".to_owned());
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Panic;

impl Handler<Panic> for Witness {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Context<Self>) {
        panic!("this handler is made to panic");
    }
}

#[derive(Message)]
#[rtype(result = "usize")]
struct Note(&'static str);

impl Handler<Note> for Witness {
    type Result = usize;

    fn handle(&mut self, note: Note, _: &mut Context<Self>) -> usize {
        let mut seen = self.seen.lock().unwrap();
        seen.push(note.0.to_owned());
        seen.len()
    }
}

/// Begins, waits for its turn to go on, and ends.
#[derive(Message)]
#[rtype(result = "()")]
struct Interleaved(&'static str, oneshot::Receiver<()>);

impl Handler<Interleaved> for Witness {
    type Result = ResponseActFuture<Self, ()>;

    fn handle(&mut self, message: Interleaved, _: &mut Context<Self>) -> Self::Result {
        let Interleaved(name, go_on) = message;
        self.seen.lock().unwrap().push(format!("{name} begins"));
        Box::pin(async move { go_on.await.unwrap() }.into_actor(self).map(move |(), actor, _| {
            actor.seen.lock().unwrap().push(format!("{name} ends"));
        }))
    }
}

/// The same, with nothing else in between.
#[derive(Message)]
#[rtype(result = "()")]
struct Atomic(&'static str, oneshot::Receiver<()>);

impl Handler<Atomic> for Witness {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, message: Atomic, _: &mut Context<Self>) -> Self::Result {
        let Atomic(name, go_on) = message;
        self.seen.lock().unwrap().push(format!("{name} begins"));
        AtomicResponse::new(Box::pin(async move { go_on.await.unwrap() }.into_actor(self).map(move |(), actor, _| {
            actor.seen.lock().unwrap().push(format!("{name} ends"));
        })))
    }
}

fn witness(capacity: Option<usize>) -> (Addr<Witness>, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let actor = Witness { seen: Arc::clone(&seen), capacity };
    (Supervisor::start(move |_| actor), seen)
}

#[actix::test]
async fn a_supervisor_of_actix_does_not_restart_an_actor_that_panicked() {
    let (panics, seen) = witness(None);
    let (other, _) = witness(None);
    assert_eq!(panics.send(Panic).await, Err(MailboxError::Closed));
    assert!(!panics.connected(), "its address is closed");
    assert_eq!(panics.send(Note("afterwards")).await, Err(MailboxError::Closed));
    assert_eq!(*seen.lock().unwrap(), ["started"]);
    assert_eq!(other.send(Note("lives on")).await, Ok(2), "others on the arbiter live on");
}

#[actix::test]
async fn handlers_that_return_a_plain_future_interleave() {
    let (addr, seen) = witness(None);
    let ((go_a, wait_a), (go_b, wait_b)) = (oneshot::channel(), oneshot::channel());
    let (a, b) = (addr.send(Interleaved("a", wait_a)), addr.send(Interleaved("b", wait_b)));
    let (a, b) = (actix::spawn(a), actix::spawn(b));
    addr.send(Note("between")).await.unwrap();
    go_b.send(()).unwrap();
    b.await.unwrap().unwrap();
    go_a.send(()).unwrap();
    a.await.unwrap().unwrap();
    assert_eq!(*seen.lock().unwrap(), ["started", "a begins", "b begins", "between", "b ends", "a ends"]);
}

#[actix::test]
async fn atomic_handlers_do_not_interleave() {
    let (addr, seen) = witness(None);
    let ((go_a, wait_a), (go_b, wait_b)) = (oneshot::channel(), oneshot::channel());
    let (a, b) = (addr.send(Atomic("a", wait_a)), addr.send(Atomic("b", wait_b)));
    let (a, b) = (actix::spawn(a), actix::spawn(b));
    let between = actix::spawn(addr.send(Note("after both")));
    go_b.send(()).unwrap();
    go_a.send(()).unwrap();
    a.await.unwrap().unwrap();
    b.await.unwrap().unwrap();
    between.await.unwrap().unwrap();
    assert_eq!(*seen.lock().unwrap(), ["started", "a begins", "a ends", "b begins", "b ends", "after both"]);
}

#[actix::test]
async fn do_send_is_neither_bounded_nor_reliable() {
    let (addr, seen) = witness(Some(1));
    addr.send(Note("is up")).await.unwrap();
    for _ in 0..100 {
        addr.do_send(Note("beyond the capacity"));
    }
    addr.send(Note("last")).await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 103, "all hundred were taken in");

    addr.do_send(Panic);
    addr.do_send(Note("lost without a word"));
    assert_eq!(addr.send(Note("closed")).await, Err(MailboxError::Closed));
    assert!(!seen.lock().unwrap().iter().any(|seen| seen.starts_with("lost")));
}

#[actix::test]
async fn the_capacity_of_a_mailbox_counts_for_each_sender() {
    let (addr, _) = witness(Some(1));
    addr.send(Note("is up")).await.unwrap();
    let (go_on, wait) = oneshot::channel();
    let busy = actix::spawn(addr.send(Atomic("busy", wait)));
    actix::clock::timeout(Duration::from_secs(10), async { while addr.try_send(Note("fills the mailbox")).is_ok() {} })
        .await
        .expect("one sender fills the mailbox");
    assert!(addr.try_send(Note("from the same sender")).is_err());
    let others: Vec<Addr<Witness>> = (0..50).map(|_| addr.clone()).collect();
    let taken = others.iter().filter(|other| other.try_send(Note("from another sender")).is_ok()).count();
    assert_eq!(taken, 50, "each further sender has a place of its own");
    go_on.send(()).unwrap();
    busy.await.unwrap().unwrap();
}

//! What always holds, what can happen, and what the checker is asked. Each property has a name that a rule of the protocol
//! would recognise.

use shared::job::StateName;
use stateright::Property;

use super::book::Turn;
use super::windlass::Windlass;
use super::world::{Fault, Said, Word, World};

pub const TERMINAL: &str = "a terminal state never changes";
pub const NO_LATE_START: &str = "no attempt starts that was claimed after the cancel";
pub const NO_CONFIRMED_START: &str = "no attempt starts after a confirmed cancel";
pub const ONE_UNFENCED: &str = "at most one attempt is unfenced";
pub const IN_ORDER: &str = "every event is published, and in order";
pub const COMMITTED_FIRST: &str = "nothing is published that is not committed";
pub const NO_GAP: &str = "every event follows on the one before it";
pub const OUTCOME_KEPT: &str = "an outcome leaves the spool only when it is committed or refused for good";
pub const GRANT_REPEATED: &str = "a claim that is repeated gets the same grant";
pub const ANSWERED_TRULY: &str = "nobody is answered by what isn't so any more";
pub const STOPPED_FOR_CAUSE: &str = "an attempt is stopped only for what is committed";
pub const KEY_SEEN: &str = "no job fails for want of a key that is there";
pub const ENDS: &str = "every job ends once failures stop";
pub const ENDS_ALONE: &str = "every job ends also without its workers";

pub const SUCCEEDS: &str = "a job succeeds";
pub const FAILS: &str = "a job fails";
pub const CONFIRMED: &str = "a job is canceled, and its worker has confirmed it";
pub const UNCONFIRMED: &str = "a job is canceled, unconfirmed";
pub const SECOND: &str = "a second attempt succeeds";

/// Every property of the model.
pub fn all() -> Vec<Property<Windlass>> {
    vec![
        Property::always(TERMINAL, |_, world| is_free_of(world, Fault::TerminalChanged)),
        Property::always(NO_LATE_START, |_, world| is_free_of(world, Fault::StartedAfterCancel)),
        Property::always(NO_CONFIRMED_START, |_, world| is_free_of(world, Fault::StartedAfterConfirmation)),
        Property::always(ONE_UNFENCED, unfenced_at_most_once),
        Property::always(IN_ORDER, |_, world| is_free_of(world, Fault::OutOfOrder)),
        Property::always(COMMITTED_FIRST, |_, world| is_free_of(world, Fault::PublishedUncommitted)),
        Property::always(NO_GAP, |_, world| is_free_of(world, Fault::NumbersCollide)),
        Property::always(OUTCOME_KEPT, |_, world| is_free_of(world, Fault::OutcomeDropped)),
        Property::always(GRANT_REPEATED, |_, world| is_free_of(world, Fault::GrantDenied)),
        Property::always(ANSWERED_TRULY, |_, world| is_free_of(world, Fault::UntrueAnswer)),
        Property::always(STOPPED_FOR_CAUSE, |_, world| is_free_of(world, Fault::StoppedForNothing)),
        Property::always(KEY_SEEN, |_, world| is_free_of(world, Fault::KeyIgnored)),
        Property::always(ENDS, Windlass::ends_with_workers),
        Property::always(ENDS_ALONE, Windlass::ends_alone),
        Property::sometimes(SUCCEEDS, |model, world| model.view(world).name == StateName::Succeeded),
        Property::sometimes(FAILS, |model, world| model.view(world).name == StateName::Failed),
        Property::sometimes(CONFIRMED, |model, world| model.view(world).confirmed),
        Property::sometimes(UNCONFIRMED, |model, world| {
            model.view(world).name == StateName::Canceled && !model.view(world).confirmed
        }),
        Property::sometimes(SECOND, |model, world| {
            model.view(world).name == StateName::Succeeded && model.view(world).attempt > 1
        }),
    ]
}

fn is_free_of(world: &World, fault: Fault) -> bool {
    world.seen.fault != Some(fault)
}

/// Of all attempts that run, and of all that words on their way are about, at most one would be heard.
fn unfenced_at_most_once(model: &Windlass, world: &World) -> bool {
    let running = world.workers.iter().enumerate().filter_map(|(w, worker)| {
        let attempt = worker.slot.attempt()?;
        Some((u8::try_from(w).ok()?, attempt))
    });
    let said = world.bus.requests.iter().filter_map(|said| match said {
        Said::Word { worker, attempt, .. } => Some((*worker, *attempt)),
        _ => None,
    });
    let heard = |(worker, attempt): &(u8, u8)| {
        let any = Said::Word { worker: *worker, attempt: *attempt, word: Word::Stopped };
        !matches!(model.book.turn(world.store.row, any), Turn::Refused(_))
    };
    let mut heard = running.chain(said).filter(heard);
    let first = heard.next();
    heard.all(|other| Some(other) == first)
}

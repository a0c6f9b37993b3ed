//! From a committed event to the messages that must follow it. There is no other source of them, so a message that
//! was lost can always be made again from the log.

use super::{Event, EventKind, Offer, StopOrder};

/// Something to send because an event was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Tell the subscribers.
    Event(Event),
    /// Offer the job to workers.
    Offer(Offer),
    /// Take the offer back.
    Withdraw(Offer),
    /// Tell the worker to end an attempt. The reply to each of its heartbeats repeats it.
    Stop(StopOrder),
}

impl Event {
    /// All messages that follow from the event, the subscribers' first.
    pub fn outgoing(&self) -> Vec<Message> {
        let mut messages = vec![Message::Event(self.clone())];
        match &self.kind {
            EventKind::Queued { offer, .. } => messages.push(Message::Offer(offer.clone())),
            EventKind::Canceling { stop } | EventKind::WorkerLost { stop, .. } => {
                messages.push(Message::Stop(stop.clone()));
            }
            EventKind::Retried { stop, .. } => messages.extend(stop.clone().map(Message::Stop)),
            EventKind::Failed { stop, offer, .. } => {
                messages.extend(stop.clone().map(Message::Stop));
                messages.extend(offer.clone().map(Message::Withdraw));
            }
            EventKind::Canceled { offer, .. } => messages.extend(offer.clone().map(Message::Withdraw)),
            EventKind::Submitted { .. } | EventKind::Scheduled { .. } | EventKind::Blocked { .. } => {}
            EventKind::Assigned { .. } | EventKind::KeyTry { .. } | EventKind::CheckedOut { .. } => {}
            EventKind::Started {} | EventKind::StepStarted { .. } | EventKind::StepFinished { .. } => {}
            EventKind::CancelRequested { .. } | EventKind::Declined { .. } => {}
            EventKind::LateReport { .. } | EventKind::Succeeded {} => {}
        }
        messages
    }
}

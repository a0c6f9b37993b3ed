//! Outcomes in one form, whoever says them: the store, whose column holds the whole state, the events and the API.

use serde::Deserialize;
use serde_json::Value;
use shared::job::{EventKind, OutcomeView, State};

use crate::chaos::history::Event;

/// A terminal job's outcome, or what can't be read as one.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// There is none, as of a job that succeeded.
    Nothing,
    Is(Box<OutcomeView>),
    Unreadable(String),
}

impl Outcome {
    /// What the API or the store says.
    pub fn said(said: Option<&Value>) -> Self {
        let Some(said) = said.filter(|said| !said.is_null()) else { return Self::Nothing };
        if said.get("state").is_some() {
            return State::deserialize(said)
                .map_or_else(|error| Self::unreadable(said, &error), |state| Self::of(&state));
        }
        OutcomeView::deserialize(said)
            .map_or_else(|error| Self::unreadable(said, &error), |view| Self::Is(Box::new(view)))
    }

    /// What a terminal event says.
    pub fn of_event(event: &Event) -> Self {
        let mut data = event.data.clone();
        if let Some(fields) = data.as_object_mut() {
            fields.entry("kind").or_insert_with(|| event.kind.clone().into());
        }
        match EventKind::deserialize(&data) {
            Ok(EventKind::Failed { failure, .. }) => Self::of(&State::Failed { failure }),
            Ok(EventKind::Canceled { canceled, .. }) => Self::of(&State::Canceled { canceled }),
            Ok(_) => Self::Nothing,
            Err(error) => Self::unreadable(&data, &error),
        }
    }

    fn of(state: &State) -> Self {
        state.outcome().map_or(Self::Nothing, |view| Self::Is(Box::new(view)))
    }

    fn unreadable(said: &Value, error: &serde_json::Error) -> Self {
        Self::Unreadable(format!("{said} ({error})"))
    }

    /// Of a canceled job, whether its worker has confirmed that nothing of it runs.
    pub fn is_confirmed(&self) -> bool {
        matches!(self, Self::Is(view) if view.confirmed == Some(true))
    }
}

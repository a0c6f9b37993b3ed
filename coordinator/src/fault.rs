//! Places where a test can make this process fail. Without the cargo feature `faults`, which no release has, each is
//! nothing at all.

#[cfg(feature = "faults")]
use std::collections::HashMap;
#[cfg(feature = "faults")]
use std::sync::{Mutex, PoisonError};

#[cfg(feature = "faults")]
static ARMED: Mutex<Option<HashMap<&'static str, u32>>> = Mutex::new(None);

/// Makes the next `times` passes of `point` panic.
#[cfg(feature = "faults")]
pub fn arm(point: &'static str, times: u32) {
    ARMED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().insert(point, times);
}

/// Passes a point: panics where a test has armed it.
#[cfg(feature = "faults")]
#[expect(clippy::panic, reason = "panicking is what an armed point is for")]
pub(crate) fn point(name: &'static str) {
    let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
    let left = armed.as_mut().and_then(|armed| armed.get_mut(name)).filter(|left| **left > 0);
    if let Some(left) = left {
        *left -= 1;
        drop(armed);
        panic!("the fault point {name} was armed");
    }
}

/// Passes a point: nothing happens.
#[cfg(not(feature = "faults"))]
pub(crate) fn point(_name: &'static str) {}

//! What is wrong with a setting's value, for the table: each check is that of the command which uses the value.

use coordinator::vault::MasterKeys;
use shared::bus::nats;
use shared::settings::Settings;
use shared::telemetry;

use crate::client::{address, token as tokens};
use crate::exit::Error;
use crate::{capacity, database, key_retry, listen as listening, retention};

/// The most bytes of a value that has no narrower bound.
const VALUE_BYTES_MAX: usize = 4096;

pub fn any(text: &str) -> Result<(), String> {
    match text {
        _ if text.len() > VALUE_BYTES_MAX => Err(format!("must have at most {VALUE_BYTES_MAX} bytes")),
        _ if text.contains(char::is_control) => Err("must hold no control characters".to_owned()),
        _ => Ok(()),
    }
}

pub fn path(text: &str) -> Result<(), String> {
    any(text)
}

pub fn switch(text: &str) -> Result<(), String> {
    text.parse::<bool>().map(drop).map_err(|_| format!("{text} is neither true nor false"))
}

pub fn slots(text: &str) -> Result<(), String> {
    let most = worker::SLOTS_MAX;
    let fits = text.parse().is_ok_and(|slots| (1..=most).contains(&slots));
    if fits { Ok(()) } else { Err(format!("{text} is not a number from 1 to {most}")) }
}

pub fn tags(text: &str) -> Result<(), String> {
    capacity::checked(&capacity::split(text)).map(drop).map_err(|error| detail(&error))
}

pub fn key_retry(text: &str) -> Result<(), String> {
    key_retry::parsed(text).map(drop)
}

pub fn retention(text: &str) -> Result<(), String> {
    let lookup = |_: &str| Some(text.to_owned());
    retention::read(None, &Settings::new(&lookup)).map(drop).map_err(|error| detail(&error))
}

pub fn listen(text: &str) -> Result<(), String> {
    listening::address_fault(text).map_or(Ok(()), Err)
}

pub fn advertised(text: &str) -> Result<(), String> {
    listening::advertise_url(text).map(drop).map_err(|error| detail(&error))
}

pub fn servers(text: &str) -> Result<(), String> {
    nats::checked(text).map_err(|error| error.to_string())
}

pub fn url(text: &str) -> Result<(), String> {
    address::checked("", text).map(drop).map_err(|error| detail(&error))
}

pub fn token(text: &str) -> Result<(), String> {
    tokens::checked(text, "").map(drop).map_err(|error| detail(&error))
}

pub fn database(text: &str) -> Result<(), String> {
    database::parsed(text).map(drop).map_err(|error| detail(&error))
}

pub fn master_keys(text: &str) -> Result<(), String> {
    MasterKeys::parse(text).map(drop).map_err(|error| error.to_string())
}

pub fn filter(text: &str) -> Result<(), String> {
    telemetry::filter_fault(text).map_or(Ok(()), Err)
}

/// What a refusal says after the name of what it refuses.
fn detail(error: &Error) -> String {
    let line = error.to_string();
    line.split_once(": ").map_or(line.clone(), |(_, detail)| detail.to_owned())
}

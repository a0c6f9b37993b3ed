//! How a worker looks for a deploy key that isn't registered, unless the job says so itself: one setting with a part for
//! each number, as in `tries=5,backoff=exponential,first=1s,max=30s,deadline=2m`.

use std::fmt::Display;
use std::str::FromStr;

use shared::settings::Settings;
use shared::spec::{KEY_TRIES_MAX, KeyRetry};
use shared::time::Period;

use crate::exit::Error;

const VARIABLE: &str = "WINDLASS_KEY_RETRY";

/// What the flag says, or else the variable; a part that is left out is as it is by default.
///
/// # Errors
/// When a part can't be used, by its name.
pub fn read(flag: Option<&str>, settings: &Settings) -> Result<KeyRetry, Error> {
    let variable = settings.text(VARIABLE);
    let (name, text) = match (flag, &variable) {
        (Some(text), _) => ("--key-retry", text),
        (None, Some(text)) => (VARIABLE, text.as_str()),
        (None, None) => return Ok(KeyRetry::default()),
    };
    parsed(text).map_err(|fault| Error::Usage(format!("{name}: {fault}")))
}

/// What a text of such parts says.
///
/// # Errors
/// What is wrong with it.
pub fn parsed(text: &str) -> Result<KeyRetry, String> {
    let mut retry = KeyRetry::default();
    let mut said = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or_else(|| format!("{part} is not like tries=5"))?;
        if said.contains(&name) {
            return Err(format!("{name} is said twice"));
        }
        said.push(name);
        match name {
            "tries" => {
                let tries = value.parse().ok().filter(|tries| (1..=KEY_TRIES_MAX).contains(tries));
                retry.tries =
                    tries.ok_or_else(|| format!("tries={value} is not a number from 1 to {KEY_TRIES_MAX}"))?;
            }
            "backoff" => retry.backoff = of(name, value)?,
            "first" => retry.first = period(name, value)?,
            "max" => retry.max = period(name, value)?,
            "deadline" => retry.deadline = period(name, value)?,
            _ => return Err(format!("{name} is not one of tries, backoff, first, max, deadline")),
        }
    }
    let (first, max) = (retry.first, retry.max);
    if first > max {
        return Err(format!("first={first} must not be longer than max={max}"));
    }
    Ok(retry)
}

fn of<T: FromStr<Err: Display>>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|error: T::Err| format!("{name}={value} {error}"))
}

fn period(name: &str, value: &str) -> Result<Period, String> {
    let period: Period = of(name, value)?;
    if period > Period::ZERO { Ok(period) } else { Err(format!("{name}={value} must be longer than nothing")) }
}

#[cfg(test)]
mod tests {
    use shared::spec::KeyBackoff;

    use super::*;

    fn retry(flag: Option<&str>, variable: &str) -> Result<KeyRetry, Error> {
        let lookup = |name: &str| (name == VARIABLE).then(|| variable.to_owned());
        read(flag, &Settings::new(&lookup))
    }

    #[test]
    fn each_part_may_be_left_out_and_the_flag_wins() {
        assert_eq!(retry(None, "").unwrap(), KeyRetry::default());
        let all = "tries=7, backoff=fibonacci,first=200ms,max=1m30s,deadline=1h";
        let [first, max, deadline] = [200, 90_000, 3_600_000].map(Period::from_millis);
        let wanted = KeyRetry { tries: 7, backoff: KeyBackoff::Fibonacci, first, max, deadline };
        assert_eq!(retry(None, all).unwrap(), wanted);
        assert_eq!(retry(Some(all), "tries=1").unwrap(), wanted);
        assert_eq!(retry(Some("tries=100"), all).unwrap(), KeyRetry { tries: 100, ..KeyRetry::default() });
    }

    #[test]
    fn the_first_wait_may_be_the_longest() {
        assert!(retry(Some("first=30s"), "").is_ok() && retry(Some("first=2s,max=2s"), "").is_ok());
    }

    #[test]
    fn a_part_that_can_not_be_is_refused_by_name() {
        for (text, named) in [
            ("tries=0", "tries=0"),
            ("tries=101", "tries=101"),
            ("tries=many", "tries=many"),
            ("tries", "tries is not like"),
            ("backoff=linear", "backoff=linear is not one of"),
            ("first=1", "first=1 is not a duration"),
            ("max=0s", "max=0s must be"),
            ("deadline=400d", "deadline=400d is longer"),
            ("first=1m", "first=1m must not be longer than max=30s"),
            ("first=2s,max=1s", "first=2s must not be longer than max=1s"),
            ("max=200ms", "first=1s must not be longer than max=200ms"),
            ("first=1s,wait=2s", "wait is not one of"),
            ("first=1s,first=2s", "first is said twice"),
        ] {
            for (refused, name) in [(retry(None, text), VARIABLE), (retry(Some(text), ""), "--key-retry")] {
                let Err(Error::Usage(message)) = refused else { panic!("{text} was taken") };
                assert!(message.starts_with(name) && message.contains(named), "{message}");
            }
        }
    }
}

//! How long jobs are kept after their end, from a flag or a variable.

use coordinator::retention::{RETENTION_DEFAULT, RETENTION_MIN};
use shared::settings::Settings;
use shared::time::Period;

use crate::exit::Error;

/// What the flag says, or else the variable, or else 30 days.
///
/// # Errors
/// When it can't be.
pub fn read(flag: Option<Period>, settings: &Settings) -> Result<Period, Error> {
    let keep = settings.flag_or(flag, "WINDLASS_RETENTION")?.unwrap_or(RETENTION_DEFAULT);
    if keep < RETENTION_MIN {
        return Err(Error::Usage(format!("--retention: must be at least {RETENTION_MIN}")));
    }
    Ok(keep)
}

#[cfg(test)]
mod tests {
    use shared::settings::Settings;
    use shared::time::Period;

    use super::read;

    #[test]
    fn jobs_are_kept_for_as_long_as_was_told_and_for_a_day_at_least() {
        let days = |count: u64| Period::from_secs(count * 24 * 60 * 60);
        let told = |flag: Option<&str>, variable: Option<&str>| {
            let lookup = |name: &str| variable.filter(|_| name == "WINDLASS_RETENTION").map(str::to_owned);
            read(flag.map(|flag| flag.parse().unwrap()), &Settings::new(&lookup)).map_err(|error| error.to_string())
        };
        assert_eq!(told(None, None), Ok(days(30)));
        assert_eq!(told(None, Some("7d")), Ok(days(7)));
        assert_eq!(told(Some("1d"), Some("7d")), Ok(days(1)));
        assert_eq!(told(Some("23h"), None), Err("--retention: must be at least 1d".to_owned()));
        assert!(told(None, Some("for ever")).is_err_and(|error| error.starts_with("WINDLASS_RETENTION: ")));
    }
}

//! Points in time and lengths of time, as the API writes them and the store keeps them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time in UTC, to the microsecond: the finest that every store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(i64);

impl Time {
    /// The last point that can be written everywhere: 9999-12-30T22:00:00Z.
    pub const MAX: Self = Self(253_402_207_200_000_000);

    /// The point `micros` microseconds after 1970-01-01T00:00:00Z.
    pub fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// From a timestamp of finer resolution, cut to the microsecond and to [`Time::MAX`].
    pub fn from_jiff(timestamp: jiff::Timestamp) -> Self {
        Self(timestamp.as_microsecond()).min(Self::MAX)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// This point and `period`, at most [`Time::MAX`].
    pub fn plus(self, period: Period) -> Self {
        let micros = i64::try_from(period.millis().saturating_mul(1000)).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(micros)).min(Self::MAX)
    }

    /// The time that much earlier.
    pub fn minus(self, period: Period) -> Self {
        let micros = i64::try_from(period.millis().saturating_mul(1000)).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(micros))
    }

    /// How long after `earlier` this is; zero when it isn't later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Time {
    /// RFC 3339 in UTC, always with six digits of the second, so that texts sort as their times do; a time that RFC 3339
    /// can't write is shown in microseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(timestamp) => write!(f, "{timestamp:.6}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

/// How RFC 3339 begins: a digit for each 0.
const FORM: &[u8; 19] = b"0000-00-00T00:00:00";

/// Why a text is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotATime {
    #[error("is not a time like 2026-12-01T08:00:00Z (RFC 3339)")]
    Form,
    /// It is later than [`Time::MAX`].
    #[error("is later than 9999-12-30T22:00:00Z, the last time that can be kept")]
    TooLate,
}

impl FromStr for Time {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        // The parser also takes ISO 8601 and RFC 9557, which nothing here promises to understand.
        let digits_stand = text.bytes().zip(*FORM).all(|(b, form)| match form {
            b'0' => b.is_ascii_digit(),
            b'T' => matches!(b, b'T' | b't' | b' '),
            mark => b == mark,
        });
        if text.len() <= FORM.len() || !digits_stand || text.contains('[') {
            return Err(if is_of_a_later_millennium(text) { NotATime::TooLate } else { NotATime::Form });
        }
        // What the parser refuses as a point in time although it is a date and a time of day lies beyond its last one.
        let is_a_date = || text.get(..FORM.len()).is_some_and(|date| date.parse::<jiff::civil::DateTime>().is_ok());
        let late = || text.starts_with("9999-12-31") && is_a_date();
        text.parse().map(Self::from_jiff).map_err(|_| if late() { NotATime::TooLate } else { NotATime::Form })
    }
}

/// Whether it begins like a time whose year has more than four digits.
fn is_of_a_later_millennium(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = text.get(digits..).unwrap_or_default();
    digits > 4 && rest.starts_with('-') && text.get(digits - 4..).is_some_and(|year| year.len() > FORM.len())
}

impl TryFrom<String> for Time {
    type Error = NotATime;

    fn try_from(text: String) -> Result<Self, NotATime> {
        text.parse()
    }
}

impl From<Time> for String {
    fn from(time: Time) -> Self {
        time.to_string()
    }
}

/// A length of time in whole milliseconds, at most [`Period::MAX`], written `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period(u64);

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The units of a duration with their length in milliseconds, longest first; `ms` is tried before `m`.
const UNITS: [(&str, u64); 5] = [("d", DAY_MS), ("h", 3_600_000), ("ms", 1), ("m", 60_000), ("s", 1000)];

impl Period {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// The longest period: 365 days.
    pub const MAX: Self = Self(365 * DAY_MS);

    /// A period of `millis` milliseconds, cut to [`Period::MAX`].
    pub const fn from_millis(millis: u64) -> Self {
        if millis > Self::MAX.0 { Self::MAX } else { Self(millis) }
    }

    /// A period of `secs` seconds, cut to [`Period::MAX`].
    pub const fn from_secs(secs: u64) -> Self {
        Self::from_millis(secs.saturating_mul(1000))
    }

    /// Its length in milliseconds.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// The two together, cut to [`Period::MAX`].
    pub const fn plus(self, other: Self) -> Self {
        Self::from_millis(self.0.saturating_add(other.0))
    }

    /// The same as the standard library's type.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for unit in ["d", "h", "m", "s", "ms"] {
            let length = UNITS.iter().find(|(name, _)| *name == unit).map_or(1, |(_, length)| *length);
            if rest >= length {
                write!(f, "{}{unit}", rest / length)?;
                rest %= length;
            }
        }
        Ok(())
    }
}

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAPeriod {
    /// It doesn't follow the grammar.
    #[error("is not a duration like 500ms, 10s, 5m, 2h, 1d or a sum of them (1h30m)")]
    Form,
    /// It is longer than [`Period::MAX`].
    #[error("is longer than 365d")]
    TooLong,
}

impl FromStr for Period {
    type Err = NotAPeriod;

    fn from_str(text: &str) -> Result<Self, NotAPeriod> {
        let mut rest = text;
        let mut total: u64 = 0;
        if rest.is_empty() {
            return Err(NotAPeriod::Form);
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let (unit, length) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit)).ok_or(NotAPeriod::Form)?;
            if digits == 0 {
                return Err(NotAPeriod::Form);
            }
            let number: u64 = number.parse().map_err(|_| NotAPeriod::TooLong)?;
            total = total.saturating_add(number.saturating_mul(*length));
            rest = tail.strip_prefix(unit).unwrap_or("");
        }
        if total > Self::MAX.0 { Err(NotAPeriod::TooLong) } else { Ok(Self(total)) }
    }
}

impl TryFrom<String> for Period {
    type Error = NotAPeriod;

    fn try_from(text: String) -> Result<Self, NotAPeriod> {
        text.parse()
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

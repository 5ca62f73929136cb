//! Times as the portal writes them: `YYYY-MM-DD HH:MM`, here always UTC.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::domain::time::UnixMs;

/// What the portal shows of a time: minutes.
#[must_use]
pub fn shown(at: UnixMs) -> String {
    civil(at, "%Y-%m-%d %H:%M")
}

/// The same time without loss, as it lies in a record.
#[must_use]
pub fn exact(at: UnixMs) -> String {
    civil(at, "%Y-%m-%dT%H:%M:%S%.3fZ")
}

fn civil(at: UnixMs, format: &str) -> String {
    let ms = i64::try_from(at.0).unwrap_or(i64::MAX);
    let instant = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
    instant.to_zoned(TimeZone::UTC).strftime(format).to_string()
}

/// Reads a time with minutes, seconds or fractions, with `T` or a space, with or without a zone
/// (UTC then). A day around the epoch means "never" and gives `None` (portal-api, 0.6).
///
/// # Errors
/// When the text is no time, or one before 1970.
pub fn parse(text: &str) -> Result<Option<UnixMs>, InvalidMoment> {
    let text = text.trim();
    let instant = match text.parse::<Timestamp>() {
        Ok(instant) => instant,
        Err(_) => {
            let civil = text.parse::<DateTime>().map_err(|_unreadable| InvalidMoment)?;
            let zoned = civil.to_zoned(TimeZone::UTC).map_err(|_unreadable| InvalidMoment)?;
            zoned.timestamp()
        }
    };
    let ms = instant.as_millisecond();
    if ms.unsigned_abs() <= DAY_MS {
        return Ok(None);
    }
    u64::try_from(ms).map(|ms| Some(UnixMs(ms))).map_err(|_before_1970| InvalidMoment)
}

/// "Never" is the epoch in the server's local time, which is at most a day away from UTC.
const DAY_MS: u64 = 86_400_000;

/// A text that is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a time like 2026-03-02 09:14")]
pub struct InvalidMoment;

/// A span in the largest unit that divides it, for texts like `1000 calls / 1 minute(s)`.
#[must_use]
pub fn span(seconds: u64) -> String {
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    let fits = units.into_iter().find(|(length, _)| 0 < seconds && seconds.is_multiple_of(*length));
    let (length, name) = fits.unwrap_or((1, "second"));
    format!("{} {name}(s)", seconds / length)
}

/// The seconds of a span like `1 minute(s)`.
#[must_use]
pub fn seconds(text: &str) -> Option<u64> {
    let (count, unit) = text.trim().split_once(' ')?;
    let length = match unit.trim().trim_end_matches("(s)").trim_end_matches('s') {
        "second" => 1,
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        _ => return None,
    };
    count.trim().parse::<u64>().ok()?.checked_mul(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_in_every_form_the_portal_writes() {
        let nine = Some(UnixMs(1_772_442_840_000));
        for text in ["2026-03-02 09:14", "2026-03-02 09:14:00", "2026-03-02T09:14:00Z"] {
            assert_eq!(parse(text), Ok(nine), "{text}");
        }
        assert_eq!(parse("1970-01-01 02:00"), Ok(None));
        assert_eq!(parse("soon"), Err(InvalidMoment));
        assert_eq!(parse("1812-01-01 00:00"), Err(InvalidMoment));
        assert_eq!(shown(UnixMs(1_772_442_899_999)), "2026-03-02 09:14");
        assert_eq!(parse(&exact(UnixMs(1_772_442_899_123))), Ok(Some(UnixMs(1_772_442_899_123))));
        assert_eq!(exact(UnixMs(u64::MAX)).len(), 24);
    }

    #[test]
    fn spans_read_back() {
        for s in [1, 59, 60, 90, 3_600, 86_400] {
            assert_eq!(seconds(&span(s)), Some(s));
        }
    }
}

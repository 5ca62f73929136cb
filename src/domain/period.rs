//! Quota periods: which window an instant lies in.

use jiff::civil::Date;
use jiff::{Timestamp, ToSpan, Zoned};

use crate::domain::counter::Window;
use crate::domain::limit::{Calendar, CalendarUnit, Period};
use crate::domain::time::UnixMs;

/// The window that `now` lies in.
///
/// * `Every`: windows tile the time around `anchor`, the subject's first use, so that no loss of a
///   counter can move one.
/// * `Calendar`: boundaries are midnights of the zone. A day of 23 or 25 hours is one day. A month
///   whose anchor day it lacks begins on its last day.
/// * `reset` counts an administrator's resets; each starts a new window.
#[must_use]
pub fn window_at(period: &Period, anchor: UnixMs, reset: u64, now: UnixMs) -> Window {
    match period {
        Period::Never => Window { start: UnixMs(0), end: None, reset },
        Period::Every { ms } => {
            let (start, end) = tile(anchor, ms.get(), now);
            Window { start, end: Some(end), reset }
        }
        Period::Calendar(calendar) => calendar_window(calendar, now)
            .map(|(start, end)| Window { start, end: Some(end), reset })
            .unwrap_or(Window { start: UnixMs(0), end: None, reset }),
    }
}

/// Tiles of `ms` milliseconds lie on both sides of `anchor`: the first use may have been noted by a
/// clock that was ahead.
fn tile(anchor: UnixMs, ms: u64, now: UnixMs) -> (UnixMs, UnixMs) {
    if anchor <= now {
        let start = anchor.plus_ms((now.since_ms(anchor) / ms).saturating_mul(ms));
        return (start, start.plus_ms(ms));
    }
    let whole = anchor.since_ms(now).saturating_sub(1) / ms;
    let end = UnixMs(anchor.0.saturating_sub(whole.saturating_mul(ms)));
    (UnixMs(end.0.saturating_sub(ms)), end)
}

/// `None` only outside the years that calendars know (-9999 to 9999): the quota then never
/// renews, which refuses rather than admits.
fn calendar_window(calendar: &Calendar, now: UnixMs) -> Option<(UnixMs, UnixMs)> {
    let instant = Timestamp::from_millisecond(i64::try_from(now.0).ok()?).ok()?;
    let local = instant.to_zoned(calendar.zone.rules());
    let today = local.date();
    let (first, next) = match calendar.unit {
        CalendarUnit::Day => (today, today.tomorrow().ok()?),
        CalendarUnit::Week => {
            let into = today.weekday().to_monday_one_offset() - anchor_weekday(calendar);
            let first = today.checked_sub(i64::from(into.rem_euclid(7)).days()).ok()?;
            (first, first.checked_add(7.days()).ok()?)
        }
        CalendarUnit::Month => {
            let this = anchored(today.first_of_month(), calendar.anchor_day)?;
            if this <= today {
                let next = today.first_of_month().checked_add(1.month()).ok()?;
                (this, anchored(next, calendar.anchor_day)?)
            } else {
                let last = today.first_of_month().checked_sub(1.month()).ok()?;
                (anchored(last, calendar.anchor_day)?, this)
            }
        }
    };
    Some((midnight(first, &local)?, midnight(next, &local)?))
}

fn anchor_weekday(calendar: &Calendar) -> i8 {
    i8::try_from(calendar.anchor_day).unwrap_or(1).clamp(1, 7)
}

/// The anchor day of the month that `first` begins, or the month's last day.
fn anchored(first: Date, anchor_day: u8) -> Option<Date> {
    let day = i8::try_from(anchor_day).unwrap_or(31).clamp(1, first.days_in_month());
    Date::new(first.year(), first.month(), day).ok()
}

fn midnight(date: Date, zone_of: &Zoned) -> Option<UnixMs> {
    let start = date.to_zoned(zone_of.time_zone().clone()).ok()?;
    u64::try_from(start.timestamp().as_millisecond()).ok().map(UnixMs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU64;

    #[test]
    fn a_rolling_period_tiles_from_first_use() {
        let hour = Period::Every { ms: NonZeroU64::new(3_600_000).unwrap() };
        let at = |now| window_at(&hour, UnixMs(500), 0, UnixMs(now));
        assert_eq!(at(500).start, UnixMs(500));
        assert_eq!(at(3_600_499).start, UnixMs(500));
        assert_eq!(at(3_600_500).start, UnixMs(3_600_500));
        assert_eq!(at(3_600_500).end, Some(UnixMs(7_200_500)));
    }

    #[test]
    fn a_clock_behind_the_first_use_is_in_a_window_before_it() {
        let hour = Period::Every { ms: NonZeroU64::new(3_600_000).unwrap() };
        let anchor = UnixMs(7_200_500);
        for (now, start, end) in [
            (7_200_500, 7_200_500, 10_800_500),
            (7_200_499, 3_600_500, 7_200_500),
            (3_600_500, 3_600_500, 7_200_500),
            (3_600_499, 500, 3_600_500),
            (500, 500, 3_600_500),
            (499, 0, 500),
            (0, 0, 500),
        ] {
            let window = window_at(&hour, anchor, 0, UnixMs(now));
            assert_eq!((window.start.0, window.end), (start, Some(UnixMs(end))), "{now}");
            assert!(window.contains(UnixMs(now)), "{now}");
        }
    }

    #[test]
    fn calendar_periods_end_at_local_midnight() {
        // unit, anchor, now                                    start                    end
        check("day UTC 1", "2026-03-02T09:14Z", "2026-03-02T00:00Z", "2026-03-03T00:00Z");
        // Clocks go forward in Paris on 2026-03-29: 23 hours.
        check("day Europe/Paris 1", "2026-03-29T12:00Z", "2026-03-28T23:00Z", "2026-03-29T22:00Z");
        // And back on 2026-10-25: 25 hours.
        check("day Europe/Paris 1", "2026-10-25T12:00Z", "2026-10-24T22:00Z", "2026-10-25T23:00Z");
        check("week UTC 1", "2026-11-22T23:59Z", "2026-11-16T00:00Z", "2026-11-23T00:00Z");
        check("week UTC 7", "2026-11-22T23:59Z", "2026-11-22T00:00Z", "2026-11-29T00:00Z");
        check("month UTC 1", "2026-11-22T00:00Z", "2026-11-01T00:00Z", "2026-12-01T00:00Z");
        check("month UTC 31", "2026-02-15T00:00Z", "2026-01-31T00:00Z", "2026-02-28T00:00Z");
        check("month UTC 31", "2026-02-28T00:00Z", "2026-02-28T00:00Z", "2026-03-31T00:00Z");
        check("month UTC 31", "2028-02-29T00:00Z", "2028-02-29T00:00Z", "2028-03-31T00:00Z");
        check("month Asia/Tokyo 15", "2026-01-14T14:59Z", "2025-12-14T15:00Z", "2026-01-14T15:00Z");
    }

    #[track_caller]
    fn check(calendar: &str, now: &str, start: &str, end: &str) {
        let [unit, zone, day] = calendar.split(' ').collect::<Vec<_>>()[..] else { panic!() };
        let unit = match unit {
            "day" => CalendarUnit::Day,
            "week" => CalendarUnit::Week,
            _ => CalendarUnit::Month,
        };
        let anchor_day = day.parse().unwrap();
        let period = Period::Calendar(Calendar { unit, zone: zone.parse().unwrap(), anchor_day });
        let ms = |text: &str| {
            let full = text.replace('Z', ":00Z");
            let at: Timestamp = full.parse().unwrap();
            UnixMs(u64::try_from(at.as_millisecond()).unwrap())
        };
        let window = window_at(&period, UnixMs(0), 0, ms(now));
        assert_eq!((window.start, window.end), (ms(start), Some(ms(end))), "{calendar} at {now}");
    }
}

//! What a client is told of its limits.
//!
//! `RateLimit-Policy` and `RateLimit` are those of the IETF draft "RateLimit header fields for
//! HTTP" (draft-ietf-httpapi-ratelimit-headers-10); `X-RateLimit-*` show the one limit to heed
//! first, with its reset as a time, as Tyk and GitHub do.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use crate::domain::reading::{Reading, Readings};
use crate::domain::time::UnixMs;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Sets the headers of a request's limits, over those that an upstream may have set.
pub(super) fn set(headers: &mut HeaderMap, readings: &Readings, now: UnixMs) {
    let Some(tightest) = readings.tightest() else { return };
    let (mut policy, mut state) = (String::with_capacity(64), String::with_capacity(64));
    for (n, reading) in readings.iter().enumerate() {
        if 0 < n {
            policy.push_str(", ");
            state.push_str(", ");
        }
        write_one(&mut policy, &mut state, reading, rank(readings, n, reading));
    }
    put(headers, POLICY, policy);
    put(headers, STATE, state);
    headers.insert(X_LIMIT, number(tightest.limit));
    headers.insert(X_REMAINING, number(tightest.remaining));
    match tightest.reset_ms {
        Some(ms) => headers.insert(X_RESET, number(now.plus_ms(ms).as_secs_up())),
        None => headers.remove(X_RESET),
    };
}

/// `Retry-After`, in whole seconds, rounded up and at least one: who heeds it is never early.
pub(super) fn set_retry(headers: &mut HeaderMap, retry_ms: u64) {
    headers.insert(RETRY_AFTER, number(retry_ms.div_ceil(1_000).max(1)));
}

/// A number as a header: with one allocation, where its own conversion takes two.
pub(super) fn number(number: u64) -> HeaderValue {
    let text = HeaderValue::from_str(itoa::Buffer::new().format(number));
    text.unwrap_or_else(|_never| HeaderValue::from(number))
}

/// How many limits of the same kind come before: names must differ.
fn rank(readings: &Readings, n: usize, reading: &Reading) -> usize {
    readings.iter().take(n).filter(|earlier| earlier.kind == reading.kind).count()
}

fn write_one(policy: &mut String, state: &mut String, reading: &Reading, rank: usize) {
    for text in [&mut *policy, &mut *state] {
        text.push('"');
        text.push_str(reading.kind.name());
        if 0 < rank {
            write_number(text, "-", rank.saturating_add(1));
        }
        text.push('"');
    }
    write_number(policy, ";q=", reading.limit);
    if let Some(window_ms) = reading.window_ms {
        write_number(policy, ";w=", window_ms.div_ceil(1_000));
    }
    write_number(state, ";r=", reading.remaining);
    if let Some(reset_ms) = reading.reset_ms {
        write_number(state, ";t=", reset_ms.div_ceil(1_000));
    }
}

/// What `write!` does, at a third of its cost.
fn write_number(text: &mut String, before: &str, number: impl itoa::Integer) {
    text.push_str(before);
    text.push_str(itoa::Buffer::new().format(number));
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::reading::LimitKind;

    #[test]
    fn the_drafts_headers_and_the_old_ones() {
        let mut readings = Readings::default();
        let reading = |kind, limit, remaining, reset_ms, window_ms| Reading {
            kind,
            limit,
            remaining,
            reset_ms,
            window_ms,
        };
        readings.push(reading(LimitKind::Rate, 5, 3, Some(6_001), Some(10_000)));
        readings.push(reading(LimitKind::Quota, 1_000, 20, Some(86_000_000), Some(86_400_000)));
        readings.push(reading(LimitKind::Quota, 50, 40, None, None));
        let mut headers = HeaderMap::new();
        set(&mut headers, &readings, UnixMs(1_000_500));
        let text = |name: &str| headers.get(name).unwrap().to_str().unwrap();
        let policy = "\"rate\";q=5;w=10, \"quota\";q=1000;w=86400, \"quota-2\";q=50";
        assert_eq!(text("ratelimit-policy"), policy);
        assert_eq!(text("ratelimit"), "\"rate\";r=3;t=7, \"quota\";r=20;t=86000, \"quota-2\";r=40");
        assert_eq!(text("x-ratelimit-limit"), "1000");
        assert_eq!(text("x-ratelimit-remaining"), "20");
        assert_eq!(text("x-ratelimit-reset"), "87001");
    }

    #[test]
    fn a_retry_is_never_early() {
        let mut headers = HeaderMap::new();
        for (ms, s) in [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2")] {
            set_retry(&mut headers, ms);
            assert_eq!(headers.get(RETRY_AFTER).unwrap(), s);
        }
    }
}

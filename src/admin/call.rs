//! One admin request, read: parameters of the path, query, headers that matter, body.

use std::time::Duration;

use axum::extract::{
    FromRequest, FromRequestParts, MatchedPath, OriginalUri, RawPathParams, Request,
};
use axum::response::{IntoResponse, Response};
use http::Method;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use super::AdminState;
use super::answer::Refusal;
use super::auth::Caller;
use super::repeats::Repeat;
use crate::wire::portal::fields::Members;

/// The largest body, in bytes: no object of the portal comes near.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// How long a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// The most rows in one page.
const ROWS_MAX: u64 = 5_000;
/// Rows in a page that does not say (portal-api, B0).
const ROWS: u64 = 20;

/// One admin request.
#[derive(Debug)]
pub(crate) struct Call {
    /// The parameters of the path, in order.
    pub(crate) params: Vec<String>,
    /// Which objects are listed.
    pub(crate) paging: Result<Paging, Vec<String>>,
    /// Whether lists come in `{"data":[..]}`.
    pub(crate) envelope: bool,
    /// Whether limits of plans come as texts, as up to version 1.12.
    pub(crate) texts: bool,
    /// Whether something that is there as it is to be made is no fault.
    pub(crate) upsert: bool,
    /// Whether the caller may change things: who may not is shown no secrets.
    pub(crate) may_write: bool,
    /// What it is known by when it comes again, if its client wants it done once.
    pub(crate) repeat: Result<Option<Repeat>, Vec<String>>,
    query: String,
    body: Result<Vec<u8>, BodyFault>,
}

#[derive(Clone, Copy, Debug)]
enum BodyFault {
    TooLarge,
    Slow,
    Broken,
}

/// A part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paging {
    /// Objects before it.
    pub(crate) offset: u64,
    /// Objects in it, at most.
    pub(crate) rows: u64,
}

impl Call {
    /// A parameter of the query that is there and not empty.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        parameter(&self.query, name).filter(|text| !text.is_empty())
    }

    /// The body, which must be a JSON object.
    pub(crate) fn members(&self) -> Result<Members, Refusal> {
        let bytes = match &self.body {
            Ok(bytes) => bytes,
            Err(BodyFault::TooLarge) => {
                return Err(Refusal::TooLarge { bytes_max: BODY_BYTES_MAX });
            }
            Err(BodyFault::Slow) => return Err(Refusal::Slow),
            Err(BodyFault::Broken) => {
                return Err(Refusal::Malformed("the body broke off".to_owned()));
            }
        };
        let value = serde_json::from_slice::<Value>(bytes).map_err(|fault| {
            // Of the fault only where it is: a body can hold a token.
            let (line, column) = (fault.line(), fault.column());
            Refusal::Malformed(format!("the body is not JSON (line {line}, column {column})"))
        })?;
        match value {
            Value::Object(members) => Ok(members),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {
                Err(Refusal::Faults(vec!["the body must be a JSON object".to_owned()]))
            }
        }
    }

    /// The body, which may be missing, or say so.
    pub(crate) fn members_or_none(&self) -> Result<Members, Refusal> {
        match &self.body {
            Ok(bytes) if matches!(bytes.trim_ascii(), b"" | b"null") => Ok(Members::new()),
            Ok(_) | Err(_) => self.members(),
        }
    }
}

impl FromRequest<AdminState> for Call {
    type Rejection = Response;

    async fn from_request(request: Request, state: &AdminState) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let matched = MatchedPath::from_request_parts(&mut parts, state).await;
        let route = matched.map(|path| path.as_str().to_owned()).unwrap_or_default();
        let params = match RawPathParams::from_request_parts(&mut parts, state).await {
            Ok(params) => params.iter().map(|(_, value)| value.to_owned()).collect(),
            // A parameter that is no text names nothing; a route without any has none.
            Err(_) if route.contains('{') => return Err(Refusal::NoPath.into_response()),
            Err(_) => Vec::new(),
        };
        let query = parts.uri.query().unwrap_or_default();
        let caller = parts.extensions.get::<Caller>();
        let compat = parts.headers.get("x-portal-compat");
        let body = if matches!(parts.method, Method::POST | Method::PUT) {
            let limited = Limited::new(body, BODY_BYTES_MAX).collect();
            match tokio::time::timeout(BODY_DEADLINE, limited).await {
                Err(_) => Err(BodyFault::Slow),
                Ok(Ok(whole)) => Ok(whole.to_bytes().into()),
                Ok(Err(fault)) if fault.is::<LengthLimitError>() => Err(BodyFault::TooLarge),
                Ok(Err(_)) => Err(BodyFault::Broken),
            }
        } else {
            Ok(Vec::new())
        };
        let path = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |uri| &uri.0).path();
        let sent = body.as_deref().unwrap_or_default();
        let pepper = state.catalog.pepper();
        let repeat = Repeat::read((&parts.method, path), &parts.headers, caller, sent, pepper);
        Ok(Self {
            params,
            repeat,
            query: query.to_owned(),
            paging: paging(query),
            envelope: matches!(parameter(query, "envelope"), Some("1" | "true")),
            may_write: caller.is_some_and(Caller::may_write),
            upsert: parts.headers.contains_key("idempotency-key")
                || matches!(parameter(query, "upsert"), Some("1" | "true")),
            texts: compat.is_some_and(|version| version.as_bytes() == b"1.12"),
            body,
        })
    }
}

/// `page` from 1, `per_page`, `limit` in place of its row count; `p` below 0 is all.
fn paging(query: &str) -> Result<Paging, Vec<String>> {
    let mut faults = Vec::new();
    let mut number = |name: &str| {
        let text = parameter(query, name).filter(|text| !text.is_empty())?;
        let number = text.parse::<i64>().ok();
        if number.is_none() {
            faults.push(format!("{name} must be a number"));
        }
        number
    };
    let all = ["p", "page"].map(&mut number).into_iter().flatten().collect::<Vec<_>>();
    let (per_page, limit) = (number("per_page"), number("limit"));
    if !faults.is_empty() {
        return Err(faults);
    }
    if all.iter().any(|page| *page < 0) {
        return Ok(Paging { offset: 0, rows: u64::MAX });
    }
    let rows = |given: Option<i64>, usual: u64| {
        let given = given.and_then(|n| u64::try_from(n).ok()).filter(|n| 0 < *n);
        given.map_or(usual, |n| n.min(ROWS_MAX))
    };
    let per_page = rows(per_page, ROWS);
    let page = all.first().and_then(|n| u64::try_from(*n).ok()).unwrap_or(1).max(1);
    Ok(Paging { offset: (page - 1).saturating_mul(per_page), rows: rows(limit, per_page) })
}

pub(crate) fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_count_from_one() {
        // query                      offset, rows
        check("", Some((0, 20)));
        check("page=3", Some((40, 20)));
        check("page=3&per_page=5", Some((10, 5)));
        check("page=3&per_page=5&limit=2", Some((10, 2)));
        check("page=0&per_page=0", Some((0, 20)));
        check("p=-2", Some((0, u64::MAX)));
        check("per_page=99999", Some((0, 5_000)));
        check("page=9223372036854775807", Some((u64::MAX, 20)));
        check("page=one", None);
    }

    #[track_caller]
    fn check(query: &str, expect: Option<(u64, u64)>) {
        let got = paging(query).ok().map(|p| (p.offset, p.rows));
        assert_eq!(got, expect, "{query}");
    }
}

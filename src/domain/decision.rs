//! Whether a credential may make a request, before its limits are charged.

use crate::domain::api::Api;
use crate::domain::denial::Denial;
use crate::domain::grant::{Grant, Opened};
use crate::domain::time::UnixMs;

/// What a decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The API the path was routed to.
    pub api: &'a Api,
    /// Method, as received: methods are case-sensitive.
    pub method: &'a str,
    /// The normal path.
    pub path: &'a str,
    /// What is left of it below the listen path; begins with `/`.
    pub rest: &'a str,
    /// The version asked for, if the request names one.
    pub version: Option<&'a str>,
}

/// Access that was granted: what is left is to charge the limits.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// The API's position in the grant.
    pub api: usize,
    /// The endpoint's position, where one with a rate of its own was hit.
    pub endpoint: Option<usize>,
    /// What the request costs, in units.
    pub cost: u64,
    opened: &'a Opened,
}

impl Access<'_> {
    /// What was opened.
    #[must_use]
    pub fn opened(&self) -> &Opened {
        self.opened
    }
}

/// Decides on the rights: pure, and without allocation.
///
/// The order is that of the statuses a client should see: what is wrong with its credential
/// first, then with what it asked for.
///
/// # Errors
/// The denial.
pub fn authorize<'g>(
    grant: &'g Grant,
    expires: Option<UnixMs>,
    request: &Request<'_>,
    now: UnixMs,
) -> Result<Access<'g>, Denial> {
    if expires.is_some_and(|expires| expires <= now) {
        return Err(Denial::Expired);
    }
    if grant.inactive {
        return Err(Denial::Inactive);
    }
    let (api, opened) = grant.opened(&request.api.id).ok_or(Denial::ApiNotGranted)?;
    if let Some(versions) = &request.api.versions {
        let wanted = request.version.or(versions.default.as_deref());
        let known = |wanted: &&str| versions.known.iter().any(|v| v.as_ref() == *wanted);
        let wanted = wanted.filter(known).ok_or(Denial::VersionUnknown)?;
        if !opened.allows_version(wanted) {
            return Err(Denial::VersionNotGranted);
        }
    }
    if !opened.allows_path(request.method, request.path, request.rest) {
        return Err(Denial::PathNotGranted);
    }
    let endpoint = opened.endpoint(request.method, request.rest);
    let cost = opened.cost(request.method, request.rest);
    Ok(Access { api, endpoint, cost, opened })
}

//! Refusals: one table says what each is answered with.

/// Why a request was refused. A denial is a decision, never an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Denial {
    /// The request cannot be read in one way only.
    BadRequest(Malformed),
    /// The request's head is larger than allowed.
    HeadTooLarge,
    /// The request-target is longer than allowed.
    TargetTooLong,
    /// The body is larger than the API takes.
    BodyTooLarge,
    /// The body stopped coming.
    BodyTimeout,
    /// The method is one no proxy may pass: `CONNECT`, `TRACE`.
    MethodNotAllowed,
    /// No API listens there.
    NoRoute,
    /// The API does not take requests from this address.
    AddressNotAllowed,
    /// No token where the API reads it.
    TokenMissing,
    /// A token nobody knows, of another organisation, or revoked.
    TokenUnknown,
    /// Too many unknown tokens from this address.
    TooManyFailures,
    /// The credential's time is over.
    Expired,
    /// The credential, or one of its policies, is switched off.
    Inactive,
    /// The credential's policies cannot be applied: one is gone, or they contradict each other.
    PoliciesUnusable,
    /// The credential does not open this API.
    ApiNotGranted,
    /// The credential does not open this version of the API.
    VersionNotGranted,
    /// The version does not exist, or the request names none.
    VersionUnknown,
    /// The credential does not open this path and method.
    PathNotGranted,
    /// The rate limit is reached.
    RateExceeded,
    /// The quota is used up.
    QuotaExceeded,
    /// More requests in flight than the plan allows.
    InFlightExceeded,
    /// The store cannot be asked and the plan says to refuse.
    StoreUnavailable,
    /// The gateway has more to do than it can.
    Overloaded,
    /// All targets have as much to do as they may.
    UpstreamOverloaded,
    /// The upstream could not be connected to.
    UpstreamUnreachable,
    /// The upstream broke off.
    UpstreamBroken,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// A bug of ours.
    Internal,
}

/// What is wrong with a request that is refused with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Malformed {
    /// None, several, or an unreadable `Host`.
    Host,
    /// Several or unreadable `Transfer-Encoding`, or one other than `chunked`.
    TransferEncoding,
    /// The request-target is not a path, or names another host.
    Target,
    /// The path can be read in two ways.
    Path,
    /// Several values where a token is read.
    Credentials,
    /// Framing or syntax.
    Syntax,
}

/// How a denial is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Stable code for machines; also the last part of the problem's `type`.
    pub code: &'static str,
    /// What went wrong, in words that never change and say nothing internal.
    pub detail: &'static str,
    /// What Tyk's `error` member says in this case.
    pub tyk_error: &'static str,
}

const DISALLOWED: &str = "Access to this API has been disallowed";

impl Denial {
    /// The one table: what this denial is answered with. Statuses: design.md, section 3.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one table, read down the page")]
    pub fn answer(self) -> Answer {
        let a = |status, code, detail, tyk_error| Answer { status, code, detail, tyk_error };
        match self {
            Self::BadRequest(what) => a(400, what.code(), what.detail(), "Bad Request"),
            Self::HeadTooLarge => {
                a(431, "head_too_large", "the request's headers are too large", "Bad Request")
            }
            Self::TargetTooLong => {
                a(414, "target_too_long", "the request-target is too long", "Bad Request")
            }
            Self::BodyTooLarge => {
                a(413, "body_too_large", "the request's body is too large", "Request is too large")
            }
            Self::BodyTimeout => {
                a(408, "body_timeout", "the request's body stopped coming", "Request Timeout")
            }
            Self::MethodNotAllowed => {
                a(400, "method_not_allowed", "this method is not passed on", "Bad Request")
            }
            Self::NoRoute => a(404, "no_route", "no API listens here", "Not Found"),
            Self::AddressNotAllowed => {
                a(403, "address_not_allowed", "requests from this address are refused", DISALLOWED)
            }
            Self::TokenMissing => {
                a(401, "token_missing", "a token is needed", "Authorization field missing")
            }
            Self::TokenUnknown => a(403, "token_unknown", "the token is not valid", DISALLOWED),
            Self::TooManyFailures => a(
                429,
                "too_many_failures",
                "too many requests with an unknown token from this address",
                "Rate Limit Exceeded",
            ),
            Self::Expired => {
                a(401, "expired", "the credential has expired", "Key has expired, please renew")
            }
            Self::Inactive => a(
                403,
                "inactive",
                "the credential is switched off",
                "Key is inactive, please renew",
            ),
            Self::PoliciesUnusable => {
                a(403, "policies_unusable", "the credential has no usable policies", DISALLOWED)
            }
            Self::ApiNotGranted => {
                a(403, "api_not_granted", "the credential does not open this API", DISALLOWED)
            }
            Self::VersionNotGranted => a(
                403,
                "version_not_granted",
                "the credential does not open this version",
                DISALLOWED,
            ),
            Self::VersionUnknown => a(
                404,
                "version_unknown",
                "the API has no such version",
                "This API version does not seem to exist",
            ),
            Self::PathNotGranted => a(
                403,
                "path_not_granted",
                "the credential does not open this path and method",
                "Access to this resource has been disallowed",
            ),
            Self::RateExceeded => {
                a(429, "rate_exceeded", "the rate limit is reached", "Rate Limit Exceeded")
            }
            Self::QuotaExceeded => {
                a(429, "quota_exceeded", "the quota is used up", "Quota exceeded")
            }
            Self::InFlightExceeded => a(
                429,
                "in_flight_exceeded",
                "too many requests are in flight",
                "Rate Limit Exceeded",
            ),
            Self::StoreUnavailable => a(
                503,
                "store_unavailable",
                "limits cannot be checked at the moment",
                "Service temporarily unavailable",
            ),
            Self::Overloaded => {
                a(503, "overloaded", "the gateway is overloaded", "Service temporarily unavailable")
            }
            Self::UpstreamOverloaded => a(
                503,
                "upstream_overloaded",
                "the upstream has as much to do as it may",
                "Service temporarily unavailable",
            ),
            Self::UpstreamUnreachable => a(
                502,
                "upstream_unreachable",
                "the upstream could not be reached",
                "There was a problem proxying the request",
            ),
            Self::UpstreamBroken => a(
                502,
                "upstream_broken",
                "the upstream's answer was broken off or malformed",
                "There was a problem proxying the request",
            ),
            Self::UpstreamTimeout => a(
                504,
                "upstream_timeout",
                "the upstream did not answer in time",
                "Upstream service reached hard timeout.",
            ),
            Self::Internal => {
                a(500, "internal", "the gateway failed", "There was a problem proxying the request")
            }
        }
    }

    /// The status in Tyk's parity mode: 403 for a used-up quota and for an unknown version.
    #[must_use]
    pub fn tyk_status(self) -> u16 {
        if matches!(self, Self::QuotaExceeded | Self::VersionUnknown) {
            403
        } else {
            self.answer().status
        }
    }
}

impl Malformed {
    fn code(self) -> &'static str {
        match self {
            Self::Host => "bad_host",
            Self::TransferEncoding => "bad_transfer_encoding",
            Self::Target => "bad_target",
            Self::Path => "ambiguous_path",
            Self::Credentials => "several_credentials",
            Self::Syntax => "bad_request",
        }
    }

    fn detail(self) -> &'static str {
        match self {
            Self::Host => "exactly one valid Host header is needed",
            Self::TransferEncoding => "Transfer-Encoding may be given once, as chunked",
            Self::Target => "the request-target must be a path on this host, of ASCII characters",
            Self::Path => "the path can be read in more than one way",
            Self::Credentials => "the token is given more than once",
            Self::Syntax => "the request is malformed",
        }
    }
}

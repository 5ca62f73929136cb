//! What the admin listener answers: bodies, statuses and envelopes (portal-api, B0).

use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::audit;
use crate::store::StoreError;
use crate::wire::admin::Scope;
use crate::wire::portal::fields::Faults;

/// A request that was done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its body.
    pub(crate) body: Value,
    /// The object it was about, for the audit line, such as `app 41`.
    pub(crate) object: String,
}

impl Answer {
    /// `{"status":"ok"}`.
    pub(crate) fn done(object: String) -> Self {
        Self { status: StatusCode::OK, body: json!({ "status": "ok" }), object }
    }
}

/// What an answer was about, in the response's extensions: for the audit log.
#[derive(Clone, Debug)]
pub(crate) struct Object(pub(crate) String);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body)).into_response();
        response.extensions_mut().insert(Object(self.object));
        response
    }
}

/// A request that was not done, and why.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Nobody we know sent it.
    Unauthorized,
    /// Its sender may not do that.
    Forbidden {
        /// What it takes: one of these scopes, or all of them.
        scopes: &'static [Scope],
        /// Whether it takes all of them.
        all: bool,
    },
    /// The body is no JSON.
    Malformed(String),
    /// The body is written in no way that is known.
    Unsupported,
    /// It cannot be done while something else is.
    Conflict(String),
    /// The body breaks rules: all of them are told.
    Faults(Vec<String>),
    /// An action was refused: all reasons are told.
    NotDone {
        /// 422, or 404 for what is not there.
        status: StatusCode,
        /// Why.
        texts: Vec<String>,
    },
    /// What the path names is not there.
    Missing {
        /// 404, or what the portal says for this request.
        status: StatusCode,
        /// Which.
        text: String,
    },
    /// It is of the portal's website, and not done here.
    NotHere,
    /// There is no such path.
    NoPath,
    /// The path has no such method.
    NoMethod,
    /// The caller wants another format than JSON.
    NotAcceptable,
    /// The body is too large.
    TooLarge {
        /// How large it may be, in bytes.
        bytes_max: usize,
    },
    /// The body did not come in time.
    Slow,
    /// Others changed the same objects again and again.
    Busy,
    /// The store failed; the detail is for the log alone.
    Store(StoreError),
    /// A bug of ours, or no randomness; the log says which.
    Internal,
}

impl Refusal {
    /// Its status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Unsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::Faults(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Missing { status, .. } | Self::NotDone { status, .. } => *status,
            Self::NotHere => StatusCode::NOT_IMPLEMENTED,
            Self::NoPath => StatusCode::NOT_FOUND,
            Self::NoMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Busy | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What programs know it by, where all its texts have the same.
    fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::Unauthorized => "unauthorized",
            Self::Forbidden { .. } => "missing_scope",
            Self::Malformed(_) => "bad_json",
            Self::Unsupported => "unsupported_media_type",
            Self::Conflict(_) => "conflict",
            Self::Faults(_) | Self::NotDone { .. } => return None,
            Self::Missing { .. } => "not_found",
            Self::NotHere => "not_implemented",
            Self::NoPath => "no_path",
            Self::NoMethod => "no_method",
            Self::NotAcceptable => "not_acceptable",
            Self::TooLarge { .. } => "body_too_large",
            Self::Slow => "body_too_slow",
            Self::Busy => "busy",
            Self::Store(_) => "store_unavailable",
            Self::Internal => "internal",
        })
    }

    /// What is wrong with what was asked for, unless it was the store that failed.
    pub(crate) fn into_faults(self) -> Result<Vec<String>, StoreError> {
        if let Self::Store(error) = self {
            return Err(error);
        }
        Ok(self.texts())
    }

    fn texts(self) -> Vec<String> {
        let text = match self {
            Self::Faults(texts) | Self::NotDone { texts, .. } => return texts,
            Self::Malformed(text) | Self::Conflict(text) | Self::Missing { text, .. } => text,
            Self::Unauthorized => "a valid admin token is required in Authorization".to_owned(),
            Self::Forbidden { scopes, all } => {
                let names: Vec<_> = scopes.iter().map(|scope| scope.name()).collect();
                let names = names.join(if all { ", " } else { " or " });
                format!("the admin token has not the scope this takes: {names}")
            }
            Self::Unsupported => {
                "the file must be application/x-ndjson or text/csv, or format must say so"
                    .to_owned()
            }
            Self::NotHere => "this is of the portal's website, and not done here".to_owned(),
            Self::NoPath => "there is no such path".to_owned(),
            Self::NoMethod => "the path has no such method".to_owned(),
            Self::NotAcceptable => "only application/json can be answered".to_owned(),
            Self::TooLarge { bytes_max } => format!("the body is larger than {bytes_max} bytes"),
            Self::Slow => "the body did not arrive in time".to_owned(),
            Self::Busy => "the object is being changed by others; try again".to_owned(),
            Self::Store(_) => "the store is not available; try again".to_owned(),
            Self::Internal => "the gateway failed; its log says why".to_owned(),
        };
        vec![text]
    }

    /// The same in the envelope of the portal's actions.
    pub(crate) fn of_action(self) -> Self {
        if !matches!(self, Self::Faults(_) | Self::Missing { .. }) {
            return self;
        }
        Self::NotDone { status: self.status(), texts: self.texts() }
    }

    /// Ok when there is no fault.
    pub(crate) fn unless_empty(faults: Faults) -> Result<(), Self> {
        if faults.is_empty() { Ok(()) } else { Err(Self::Faults(faults.into_texts())) }
    }
}

impl From<StoreError> for Refusal {
    fn from(fault: StoreError) -> Self {
        Self::Store(fault)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if let Self::Store(fault) = &self {
            let cause = std::error::Error::source(fault).map(ToString::to_string);
            tracing::error!(error = %fault, cause, "admin request failed in the store");
        }
        let bare = matches!(self, Self::Faults(_) | Self::Missing { .. } | Self::NoPath);
        let (status, closes) = (self.status(), matches!(self, Self::TooLarge { .. } | Self::Slow));
        let (action, code) = (matches!(self, Self::NotDone { .. }), self.code());
        let texts = self.texts();
        let codes = texts.iter().map(|text| code.unwrap_or_else(|| code_of(text))).collect();
        let told = Told { texts: texts.clone(), codes };
        let body = match (bare, action) {
            (true, _) => json!({ "errors": texts }),
            (false, false) => json!({ "status": "error", "errors": texts }),
            // Some of them document a message, others a list.
            (false, true) => {
                json!({ "status": "error", "message": texts.join("; "), "errors": texts })
            }
        };
        let mut response = (status, Json(body)).into_response();
        response.extensions_mut().insert(told);
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if closes {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// What an error says, in the response's extensions: for the envelope of [`native`].
#[derive(Clone, Debug)]
struct Told {
    texts: Vec<String>,
    /// One for each text.
    codes: Vec<&'static str>,
}

/// What programs know a fault by, of which the sentence says it.
fn code_of(text: &str) -> &'static str {
    const ENDS: [(&str, &str); 6] = [
        ("key already in use", "key_in_use"),
        (" is already in use", "name_in_use"),
        (" is required", "missing_field"),
        (" does not exist", "unknown_reference"),
        (" names nothing that exists", "unknown_reference"),
        (" must name at least one product", "missing_field"),
    ];
    let known = ENDS.into_iter().find(|(end, _)| text.ends_with(end));
    known.map_or("invalid", |(_, code)| code)
}

/// Errors of our own paths: the portal's envelope with a code for each text, and the request's id
/// (portal-api, F).
pub(crate) async fn native(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let Some(Told { texts, codes }) = response.extensions_mut().remove() else { return response };
    let response = audit::named(response);
    let id = response.headers().get(audit::REQUEST_ID).and_then(|id| id.to_str().ok());
    let body = json!({ "status": "error", "errors": texts, "codes": codes, "request_id": id });
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(body.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_has_the_code_that_its_sentence_says() {
        let check = |text, expect| assert_eq!(code_of(text), expect, "{text}");
        check("Name is required", "missing_field");
        check("PlanID 99 does not exist", "unknown_reference");
        check("PlanID names nothing that exists", "unknown_reference");
        check("key already in use", "key_in_use");
        check("Name is already in use", "name_in_use");
        check("ProductIDs must name at least one product", "missing_field");
        check("Path is ambiguous: it has a dot segment", "invalid");
    }
}

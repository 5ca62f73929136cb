//! Who may use the admin listener.

use std::fmt;
use std::sync::Arc;

use axum::extract::{OriginalUri, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, Method, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::answer::Refusal;
use super::{AdminState, explain, preview, tokens};
use crate::domain::token::{Pepper, TokenHash};
use crate::wire::admin::Scope;

/// The shortest admin secret, in bytes (design.md, 5): there is no default.
pub const SECRET_LEN_MIN: usize = 16;
/// What the holder of the configured secret is called in the audit log. No token has this name.
pub(crate) const SECRET_NAME: &str = "admin";
/// The header of Tyk's API.
const TYK_AUTHORIZATION: HeaderName = HeaderName::from_static("x-tyk-authorization");

/// The admin secret, kept as its SHA-256 only.
#[derive(Clone)]
pub struct AdminSecret([u8; 32]);

/// An admin secret that is missing or too short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the admin secret must be at least {SECRET_LEN_MIN} characters long")]
pub struct WeakSecret;

impl AdminSecret {
    /// Takes a secret as configured.
    ///
    /// # Errors
    /// When it is shorter than [`SECRET_LEN_MIN`].
    pub fn parse(secret: &str) -> Result<Self, WeakSecret> {
        if secret.len() < SECRET_LEN_MIN {
            return Err(WeakSecret);
        }
        Ok(Self(Sha256::digest(secret).into()))
    }

    /// What the secret would be looked up by if it were a credential's token.
    #[must_use]
    pub(crate) fn hash(&self, pepper: &Pepper) -> TokenHash {
        pepper.hash_sha256(&self.0)
    }

    /// Whether `presented` is the secret. The time it takes depends on the length of `presented`
    /// only.
    #[must_use]
    pub fn matches(&self, presented: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(presented).into();
        self.0.ct_eq(&digest).into()
    }
}

impl fmt::Debug for AdminSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminSecret(..)")
    }
}

/// Who sent a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The name of the token.
    pub(crate) name: Arc<str>,
    scopes: Vec<Scope>,
}

/// What a request needs of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// One of these scopes.
    AnyOf(&'static [Scope]),
    /// All scopes: who hands out rights must have them.
    All,
}

/// Lets only those through who hold an admin token with the right scope, before anything of a body
/// is read.
pub(crate) async fn require(
    State(state): State<AdminState>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = match request.extensions().get::<OriginalUri>() {
        Some(OriginalUri(uri)) => uri.path(),
        None => request.uri().path(),
    };
    let need = need(request.method(), path);
    let header = if path.starts_with("/tyk/") { TYK_AUTHORIZATION } else { header::AUTHORIZATION };
    let Some(token) = presented(request.headers(), &header) else {
        return Refusal::Unauthorized.into_response();
    };
    let caller = if state.secret.matches(token) {
        Ok(Some(Caller { name: SECRET_NAME.into(), scopes: Scope::ALL.to_vec() }))
    } else {
        tokens::find(&state, token).await
    };
    let caller = match caller {
        Ok(Some(caller)) => caller,
        Ok(None) => return Refusal::Unauthorized.into_response(),
        Err(error) => return Refusal::Store(error).into_response(),
    };
    if !accepts_json(request.headers()) {
        return Refusal::NotAcceptable.into_response();
    }
    if !caller.may(need) {
        let scopes = match need {
            Need::AnyOf(scopes) => scopes,
            Need::All => &Scope::ALL,
        };
        let all = need == Need::All;
        return Refusal::Forbidden { scopes, all }.into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

impl Caller {
    /// A token's.
    pub(crate) fn new(name: &str, scopes: Vec<Scope>) -> Self {
        Self { name: name.into(), scopes }
    }

    /// Whether they may change things.
    pub(crate) fn may_write(&self) -> bool {
        self.scopes.contains(&Scope::Write)
    }

    fn may(&self, need: Need) -> bool {
        let has = |scope: &Scope| self.scopes.contains(scope);
        match need {
            Need::AnyOf(scopes) => scopes.iter().any(has),
            Need::All => Scope::ALL.iter().all(has),
        }
    }
}

/// Whether a request changes nothing.
pub(crate) fn reads(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD) || [explain::PATH, preview::PATH].contains(&path)
}

/// What a request needs, by method and path.
fn need(method: &Method, path: &str) -> Need {
    let reads = reads(method, path);
    if path.starts_with("/v1/admin/") {
        Need::All
    } else if path == "/v1/imports" || path.starts_with("/v1/imports/") {
        Need::AnyOf(if reads { &[Scope::Import, Scope::Read] } else { &[Scope::Import] })
    } else if !reads {
        Need::AnyOf(&[Scope::Write])
    } else if path.starts_with("/v1/usage") || path.ends_with("/usage") {
        Need::AnyOf(&[Scope::Usage, Scope::Read])
    } else {
        Need::AnyOf(&[Scope::Read])
    }
}

/// The token in the one header of that name, raw or `Bearer`.
fn presented<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut all = headers.get_all(name).iter();
    let value = all.next()?.as_bytes();
    if all.next().is_some() {
        return None;
    }
    match value.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") => {
            Some(token.trim_ascii())
        }
        Some(_) | None => Some(value),
    }
}

fn accepts_json(headers: &HeaderMap) -> bool {
    let mut kinds = headers.get_all(header::ACCEPT).iter().peekable();
    let json = |part: &str| {
        let kind = part.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        matches!(
            kind.as_str(),
            "" | "*/*" | "application/*" | "application/json" | "application/x-ndjson"
        )
    };
    kinds.peek().is_none()
        || kinds.any(|value| value.to_str().is_ok_and(|list| list.split(',').any(json)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_raw_or_bearer_and_comes_once() {
        let check = |values: &[&'static str], expect: Option<&str>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, http::HeaderValue::from_static(value));
            }
            assert_eq!(
                presented(&headers, &header::AUTHORIZATION),
                expect.map(str::as_bytes),
                "{values:?}"
            );
        };
        check(&["secret"], Some("secret"));
        check(&["Bearer secret"], Some("secret"));
        check(&["bearer  secret"], Some("secret"));
        check(&["Basic secret"], Some("Basic secret"));
        check(&["secret", "secret"], None);
        check(&[], None);
    }

    #[test]
    fn every_path_has_its_scopes() {
        let check = |request: &str, expect: Need| {
            let (method, path) = request.split_once(' ').unwrap();
            assert_eq!(need(&method.parse().unwrap(), path), expect, "{request}");
        };
        check("GET /portal-api/apps", Need::AnyOf(&[Scope::Read]));
        check("PUT /portal-api/apps/1", Need::AnyOf(&[Scope::Write]));
        check("GET /portal-api/apps/1/usage", Need::AnyOf(&[Scope::Usage, Scope::Read]));
        check("PUT /portal-api/apps/1/usage", Need::AnyOf(&[Scope::Write]));
        check("GET /v1/usage", Need::AnyOf(&[Scope::Usage, Scope::Read]));
        check("POST /v1/imports", Need::AnyOf(&[Scope::Import]));
        check("GET /v1/imports/3/errors", Need::AnyOf(&[Scope::Import, Scope::Read]));
        check("DELETE /v1/imports/3", Need::AnyOf(&[Scope::Import]));
        check("GET /v1/importsx", Need::AnyOf(&[Scope::Read]));
        check("GET /v1/audit", Need::AnyOf(&[Scope::Read]));
        check("GET /v1/admin/tokens", Need::All);
        check("POST /v1/admin/tokens", Need::All);
        check("DELETE /tyk/keys/x", Need::AnyOf(&[Scope::Write]));
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert_eq!(AdminSecret::parse("").unwrap_err(), WeakSecret);
        let secret = AdminSecret::parse("sixteen letters!").unwrap();
        assert!(secret.matches(b"sixteen letters!"));
        assert!(!secret.matches(b"sixteen letters"));
        assert_eq!(format!("{secret:?}"), "AdminSecret(..)");
    }
}

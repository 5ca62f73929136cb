//! Who may use the admin listener.

use std::fmt;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::AdminState;
use super::answer::Refusal;

/// The shortest admin secret, in bytes (design.md, 5): there is no default.
pub const SECRET_LEN_MIN: usize = 16;

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

/// Lets only those through who hold the secret, before anything of a body is read.
pub(crate) async fn require(
    State(state): State<AdminState>,
    request: Request,
    next: Next,
) -> Response {
    let known = presented(request.headers()).is_some_and(|token| state.secret.matches(token));
    if !known {
        return Refusal::Unauthorized.into_response();
    }
    if !accepts_json(request.headers()) {
        return Refusal::NotAcceptable.into_response();
    }
    next.run(request).await
}

/// The token of the one `Authorization` header, raw or `Bearer`.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
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
        matches!(kind.as_str(), "" | "*/*" | "application/*" | "application/json")
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
            assert_eq!(presented(&headers), expect.map(str::as_bytes), "{values:?}");
        };
        check(&["secret"], Some("secret"));
        check(&["Bearer secret"], Some("secret"));
        check(&["bearer  secret"], Some("secret"));
        check(&["Basic secret"], Some("Basic secret"));
        check(&["secret", "secret"], None);
        check(&[], None);
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

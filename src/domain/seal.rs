//! Secrets that the portal reads again: sealed under a key that only holders of the pepper have.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};

use crate::domain::token::Token;

/// Length of a nonce, in bytes: long enough to be drawn at random for every secret.
pub const NONCE_LEN: usize = 24;

/// How often a secret that this gateway generated or keeps for display is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reveal {
    /// Whenever its credential is shown, until it is revoked: what a portal expects.
    #[default]
    Always,
    /// In the answer that makes it, and never again.
    Once,
}

/// Seals secrets. A sealed one is the nonce, then the ciphertext with its tag.
#[derive(Clone)]
pub struct Seal(XChaCha20Poly1305);

impl Seal {
    /// `key` is used for nothing else.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self(XChaCha20Poly1305::new(&Key::from(key)))
    }

    /// Seals a secret, so that it can be opened for the same `purpose` alone. `nonce` is random,
    /// and used once. `None` only for secrets of many gigabytes.
    #[must_use]
    pub fn close(&self, secret: &Token, purpose: &[u8], nonce: [u8; NONCE_LEN]) -> Option<Vec<u8>> {
        let payload = Payload { msg: secret.reveal().as_bytes(), aad: purpose };
        let sealed = self.0.encrypt(&XNonce::from(nonce), payload).ok()?;
        Some([nonce.as_slice(), &sealed].concat())
    }

    /// Opens it; `None` when it was sealed with another pepper, for another purpose, or changed.
    #[must_use]
    pub fn open(&self, sealed: &[u8], purpose: &[u8]) -> Option<Token> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let payload = Payload { msg: sealed, aad: purpose };
        let secret = self.0.decrypt(&XNonce::from(*nonce), payload).ok()?;
        String::from_utf8(secret).ok().map(Token::new)
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_key_for_the_same_purpose_alone() {
        let (seal, secret) = (Seal::new([7; 32]), Token::new("tp_secret".to_owned()));
        let sealed = seal.close(&secret, b"credential 1", [1; NONCE_LEN]).unwrap();
        let open = |seal: &Seal, sealed: &[u8], purpose: &[u8]| {
            seal.open(sealed, purpose).map(|secret| secret.reveal().to_owned())
        };
        assert_eq!(open(&seal, &sealed, b"credential 1").as_deref(), Some("tp_secret"));
        assert_eq!(open(&seal, &sealed, b"credential 2"), None);
        assert_eq!(open(&Seal::new([8; 32]), &sealed, b"credential 1"), None);
        for at in 0..sealed.len() {
            let mut other = sealed.clone();
            other[at] ^= 1;
            assert_eq!(open(&seal, &other, b"credential 1"), None, "byte {at}");
        }
        assert_eq!(open(&seal, &sealed[..NONCE_LEN], b"credential 1"), None);
        assert!(!sealed.windows(9).any(|part| part == b"tp_secret"));
    }
}

//! Tokens and what they are stored and looked up by.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

/// The shortest token we accept, in bytes (Tyk's floor, reference `min_token_length`).
pub const TOKEN_LEN_MIN: usize = 3;
/// The longest token we accept, in bytes: longer ones are refused before they are hashed.
pub const TOKEN_LEN_MAX: usize = 4096;

/// A token in the clear, on its way to being hashed. Wiped when dropped.
///
/// It has no `Display`, `PartialEq`, `Clone` or serialisation, and `Debug` shows its length only.
pub struct Token(Zeroizing<String>);

impl Token {
    /// Takes a token as a caller gave it.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The clear text, for hashing and for the one answer that shows it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} bytes)", self.0.len())
    }
}

/// What a credential is stored and looked up by: `HMAC-SHA-256(pepper, SHA-256(token))`.
///
/// There is no `Display`, and `Debug` shows 4 bytes of 32: enough to join log lines, no more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// The first eight bytes as a number: already uniform, so maps use it as their hash.
    #[must_use]
    pub fn prefix(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "TokenHash({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

/// The secret that makes a stolen copy of the store useless for guessing short tokens.
///
/// All gateways of one store share it. Hashing with it costs three SHA-256 blocks for a token of
/// up to 55 bytes: the keyed inner and outer blocks are computed once, here.
#[derive(Clone)]
pub struct Pepper {
    keyed: Hmac<Sha256>,
    id: u32,
}

impl Pepper {
    /// Keys the hash. The id (first four bytes of the key's own hash) goes into records.
    #[must_use]
    pub fn new(mut key: [u8; 32]) -> Self {
        let digest: [u8; 32] = Sha256::digest(key).into();
        let [a, b, c, d, ..] = digest;
        // HMAC pads a short key with zeros to one block; done here, the constructor cannot fail.
        let mut block = [0; 64];
        for (to, from) in block.iter_mut().zip(key) {
            *to = from;
        }
        let keyed = Hmac::<Sha256>::new(&block.into());
        block.zeroize();
        key.zeroize();
        Self { keyed, id: u32::from_be_bytes([a, b, c, d]) }
    }

    /// Tells peppers apart without telling anything of the key.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Hashes a token in the clear.
    #[must_use]
    pub fn hash(&self, token: &[u8]) -> TokenHash {
        self.hash_sha256(&Sha256::digest(token).into())
    }

    /// Hashes a token of which only the SHA-256 is known: the same record as [`Self::hash`].
    #[must_use]
    pub fn hash_sha256(&self, sha256_of_token: &[u8; 32]) -> TokenHash {
        let mut mac = self.keyed.clone();
        mac.update(sha256_of_token);
        TokenHash(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pepper({:08x})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_and_its_sha256_give_the_same_record() {
        let pepper = Pepper::new([7; 32]);
        let sha: [u8; 32] = Sha256::digest(b"LEG-00fa").into();
        assert_eq!(pepper.hash(b"LEG-00fa"), pepper.hash_sha256(&sha));
        assert_ne!(pepper.hash(b"LEG-00fa"), Pepper::new([8; 32]).hash(b"LEG-00fa"));
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", Token::new("secret".into())), "Token(6 bytes)");
        assert_eq!(format!("{:?}", TokenHash([0xab; 32])), "TokenHash(abababab..)");
    }
}

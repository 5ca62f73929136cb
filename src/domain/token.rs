//! Tokens and what they are stored and looked up by.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::domain::seal::Seal;

/// The shortest token we accept, in bytes (Tyk's floor, reference `min_token_length`).
pub const TOKEN_LEN_MIN: usize = 3;
/// The longest token we accept, in bytes: longer ones are refused before they are hashed.
pub const TOKEN_LEN_MAX: usize = 4096;

/// A token in the clear, on its way to being hashed. Wiped when dropped.
///
/// It has no `Display`, `PartialEq`, `Clone` or serialisation, and `Debug` shows its length only.
pub struct Token(Zeroizing<String>);

/// Random bytes in a generated token: 160 bits.
pub const NOISE_LEN: usize = 20;
/// Digits that 160 bits take in base 62.
const NOISE_DIGITS: usize = 27;
/// Digits that a CRC-32 takes in base 62.
const CHECK_DIGITS: usize = 6;

impl Token {
    /// Makes a token of random bytes: `tp_`, 27 digits of base 62, `_`, and in 6 more the CRC-32 of
    /// all before the second `_`. Prefix and checksum let scanners of code and logs find leaked
    /// tokens without asking anybody; whoever checks a request does not rely on them.
    #[must_use]
    pub fn generate(noise: [u8; NOISE_LEN]) -> Self {
        let mut text = Zeroizing::new(String::from("tp_"));
        base62(&mut text, &noise, NOISE_DIGITS);
        let check = crc32fast::hash(text.as_bytes());
        text.push('_');
        base62(&mut text, &check.to_be_bytes(), CHECK_DIGITS);
        Self(text)
    }

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

/// Writes a big-endian number in base 62, with leading zeros up to `digits`.
fn base62(text: &mut String, number: &[u8], digits: usize) {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = Zeroizing::new(number.to_vec());
    let mut reversed = Zeroizing::new(Vec::with_capacity(digits));
    for _ in 0..digits {
        let mut remainder = 0_u32;
        for byte in rest.iter_mut() {
            let value = remainder << 8 | u32::from(*byte);
            remainder = value % 62;
            // Below 256, since the remainder before was below 62.
            *byte = u8::try_from(value / 62).unwrap_or(u8::MAX);
        }
        let digit = usize::try_from(remainder).ok().and_then(|at| DIGITS.get(at));
        reversed.push(digit.copied().unwrap_or(b'0'));
    }
    debug_assert!(rest.iter().all(|byte| *byte == 0), "{digits} digits hold the number");
    text.extend(reversed.iter().rev().map(|digit| char::from(*digit)));
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
    seal: Seal,
    id: u32,
}

/// What the sealing key is derived for. With the counter byte it is not 32 bytes long, as every
/// input of the token hash is: the two uses of the pepper never meet.
const SEAL_INFO: &[u8] = b"turnpike/seal/v1";

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
        // HKDF-Expand (RFC 5869, 2.3), whose first block is all of a 32-byte key. The pepper is
        // uniform already, so that it needs no HKDF-Extract.
        let mut expand = keyed.clone();
        expand.update(SEAL_INFO);
        expand.update(&[1]);
        let seal = Seal::new(expand.finalize().into_bytes().into());
        Self { keyed, seal, id: u32::from_be_bytes([a, b, c, d]) }
    }

    /// Tells peppers apart without telling anything of the key.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What secrets that are shown again are sealed with.
    #[must_use]
    pub fn seal(&self) -> &Seal {
        &self.seal
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
    fn a_generated_token_has_prefix_noise_and_checksum() {
        let check = |noise, expect: &str| assert_eq!(Token::generate(noise).reveal(), expect);
        // Both by Python: digits of int.from_bytes(noise, "big"), zlib.crc32 of what is before.
        check([0; 20], "tp_000000000000000000000000000_3PgSff");
        check([0xff; 20], "tp_aWgEPTl1tmebfsQzFP4bxwgy80V_360z6w");
    }

    #[test]
    fn another_pepper_seals_otherwise() {
        let (secret, nonce) = (Token::new("secret".into()), [0; 24]);
        let close = |pepper: [u8; 32]| Pepper::new(pepper).seal().close(&secret, b"", nonce);
        assert_eq!(close([7; 32]), close([7; 32]));
        assert_ne!(close([7; 32]), close([8; 32]));
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", Token::new("secret".into())), "Token(6 bytes)");
        assert_eq!(format!("{:?}", TokenHash([0xab; 32])), "TokenHash(abababab..)");
    }
}

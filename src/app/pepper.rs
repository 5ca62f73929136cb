//! The secret that tokens are hashed with: from a file, or made once and kept in the store.

use std::path::Path;

use crate::domain::token::Pepper;
use crate::store::{AnyStore, Committed, Expect, Kind, RecordKey, RecordStore, StoreError, Write};

/// Length of a pepper, in bytes.
const PEPPER_LEN: usize = 32;

/// Why there is no pepper.
#[derive(Debug, thiserror::Error)]
pub enum PepperError {
    /// The file cannot be read.
    #[error("the pepper file cannot be read")]
    Read(#[source] std::io::Error),
    /// It holds something else.
    #[error("the pepper file must hold 32 bytes, or 64 hexadecimal digits")]
    Shape,
    /// The store's tokens were hashed with another one: with this one all would be unknown.
    #[error("the store was made with another pepper")]
    Another,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random(getrandom::Error),
    /// The store gave no answer.
    #[error("the store gave no answer")]
    Store(#[from] StoreError),
}

/// The pepper of this store. The first start decides whether it is in a file or in the store.
pub(super) async fn load(store: &AnyStore, file: Option<&Path>) -> Result<Pepper, PepperError> {
    let key = match file {
        Some(file) => parse(&std::fs::read(file).map_err(PepperError::Read)?),
        None => {
            let mut fresh = [0; PEPPER_LEN];
            getrandom::fill(&mut fresh).map_err(PepperError::Random)?;
            parse(&once(store, "pepper", fresh.to_vec()).await?)
        }
    };
    let pepper = Pepper::new(key.ok_or(PepperError::Shape)?);
    let id = pepper.id().to_be_bytes();
    if once(store, "pepper-id", id.to_vec()).await?.as_ref() == id {
        Ok(pepper)
    } else {
        Err(PepperError::Another)
    }
}

/// What the store holds under a name; `fresh` if it held nothing.
async fn once(
    store: &AnyStore,
    name: &str,
    fresh: Vec<u8>,
) -> Result<std::sync::Arc<[u8]>, StoreError> {
    let key = RecordKey::bytes(Kind::Meta, name);
    for _ in 0..2 {
        if let Some(record) = store.get(&key).await? {
            return Ok(record.value);
        }
        let value: std::sync::Arc<[u8]> = fresh.clone().into();
        let write = Write { key: key.clone(), expect: Expect::Absent, value: Some(value.clone()) };
        if let Committed::At(_) = store.commit(vec![write]).await? {
            return Ok(value);
        }
    }
    Err(StoreError::Damaged { what: "the pepper" })
}

fn parse(bytes: &[u8]) -> Option<[u8; PEPPER_LEN]> {
    if let Ok(raw) = bytes.try_into() {
        return Some(raw);
    }
    let text = std::str::from_utf8(bytes).ok()?.trim();
    if text.len() != PEPPER_LEN * 2 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = [0; PEPPER_LEN];
    for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pepper_is_32_bytes_or_64_digits() {
        assert_eq!(parse(&[7; 32]), Some([7; 32]));
        assert_eq!(parse(format!("{}\n", "07".repeat(32)).as_bytes()), Some([7; 32]));
        assert_eq!(parse(b"short"), None);
        assert_eq!(parse("zz".repeat(32).as_bytes()), None);
    }
}

//! The secret that tokens are hashed with: from a file, or made once and kept in
//! the store, and then beside this gateway's copy of it too.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::domain::token::Pepper;
use crate::store::{AnyStore, Committed, Expect, Kind, RecordKey, RecordStore, StoreError, Write};

/// Length of a pepper, in bytes.
const PEPPER_LEN: usize = 32;
/// The names of the records that hold it, and its id.
const PEPPER: &str = "pepper";
const ID: &str = "pepper-id";
/// The file beside a copy of the store.
const KEPT: &str = "pepper";

/// Where the pepper may be beside the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    /// The configured file: then it is nowhere else.
    pub(super) file: Option<&'a Path>,
    /// The folder of this gateway's own state, if it has one.
    pub(super) folder: Option<&'a Path>,
}

/// Why there is no pepper.
#[derive(Debug, thiserror::Error)]
pub enum PepperError {
    /// The file cannot be read.
    #[error("the pepper file cannot be read")]
    Read(#[source] std::io::Error),
    /// It cannot be kept beside the copy of the store.
    #[error("the pepper cannot be kept in the folder of the store")]
    Keep(#[source] std::io::Error),
    /// It holds something else.
    #[error("the pepper file must hold 32 bytes, or 64 hexadecimal digits")]
    Shape,
    /// The store's tokens were hashed with another one: with this one all would be unknown.
    #[error("the store was made with another pepper")]
    Another,
    /// It is neither in the store any more nor kept beside the copy of it.
    #[error("the store has lost the pepper, and it is not kept here")]
    Lost,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random(getrandom::Error),
    /// The store gave no answer.
    #[error("the store gave no answer")]
    Store(#[from] StoreError),
}

/// The pepper of this store. The first start decides whether it is in a file or in the store. A store that
/// has lost all it had gets back the one that this gateway keeps.
pub(super) async fn load(store: &AnyStore, source: &Source<'_>) -> Result<Pepper, PepperError> {
    let key = match source.file {
        Some(file) => read(file)?,
        None => {
            let mut fresh = [0; PEPPER_LEN];
            match own(source)? {
                Some(own) => fresh = own,
                None => getrandom::fill(&mut fresh).map_err(PepperError::Random)?,
            }
            parse(&once(store, PEPPER, fresh.to_vec()).await?)
        }
    };
    let key = key.ok_or(PepperError::Shape)?;
    let pepper = Pepper::new(key);
    let id = pepper.id().to_be_bytes();
    if once(store, ID, id.to_vec()).await?.as_ref() != id {
        return Err(PepperError::Another);
    }
    if let (None, Some(folder)) = (source.file, source.folder) {
        keep(folder, &key).map_err(PepperError::Keep)?;
    }
    Ok(pepper)
}

/// Puts the pepper that this gateway runs with back into a store that has none any more. Nothing is written
/// if what is kept here is another.
pub(super) async fn put_back(
    store: &AnyStore,
    source: &Source<'_>,
    running: &Pepper,
) -> Result<(), PepperError> {
    let id = running.id().to_be_bytes();
    if let Some(stored) = store.get(&RecordKey::bytes(Kind::Meta, ID)).await? {
        return if stored.value.as_ref() == id { Ok(()) } else { Err(PepperError::Another) };
    }
    let is_running = |key: &[u8; PEPPER_LEN]| Pepper::new(*key).id() == running.id();
    let own = own(source)?.filter(is_running).ok_or(PepperError::Lost)?;
    if source.file.is_none() && once(store, PEPPER, own.to_vec()).await?.as_ref() != own {
        return Err(PepperError::Another);
    }
    if once(store, ID, id.to_vec()).await?.as_ref() != id {
        return Err(PepperError::Another);
    }
    Ok(())
}

/// The pepper as it is known without the store; `None`: it is not.
pub(super) fn recall(source: &Source<'_>) -> Result<Option<Pepper>, PepperError> {
    Ok(own(source)?.map(Pepper::new))
}

/// What this gateway has of it without the store.
fn own(source: &Source<'_>) -> Result<Option<[u8; PEPPER_LEN]>, PepperError> {
    match (source.file, source.folder) {
        (Some(file), _) => read(file)?.map(Some).ok_or(PepperError::Shape),
        (None, Some(folder)) => kept(folder),
        (None, None) => Ok(None),
    }
}

/// The pepper beside the copy of the store.
fn kept(folder: &Path) -> Result<Option<[u8; PEPPER_LEN]>, PepperError> {
    match std::fs::read(folder.join(KEPT)) {
        Ok(bytes) => {
            let key = parse(&bytes);
            if key.is_none() {
                // The store has it, too.
                tracing::warn!("the pepper in the folder of the store is damaged");
            }
            Ok(key)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PepperError::Read(error)),
    }
}

fn read(file: &Path) -> Result<Option<[u8; PEPPER_LEN]>, PepperError> {
    std::fs::read(file).map(|bytes| parse(&bytes)).map_err(PepperError::Read)
}

/// Keeps the store's pepper beside the copy of it, in one step.
fn keep(folder: &Path, key: &[u8; PEPPER_LEN]) -> std::io::Result<()> {
    let path = folder.join(KEPT);
    if std::fs::read(&path).is_ok_and(|kept| kept == key) {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let new = folder.join("pepper.new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(key)?;
    file.sync_all()?;
    std::fs::rename(&new, &path)?;
    File::open(folder)?.sync_all()
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
    fn a_kept_pepper_is_read_back_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state");
        let source = Source { file: None, folder: Some(&folder) };
        assert!(recall(&source).unwrap().is_none());
        for key in [[7; 32], [8; 32]] {
            keep(&folder, &key).unwrap();
            let pepper = recall(&source).unwrap().unwrap();
            assert_eq!(pepper.id(), Pepper::new(key).id());
        }
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(KEPT))), (0o700, 0o600));
        std::fs::write(folder.join(KEPT), b"short").unwrap();
        assert!(recall(&source).unwrap().is_none(), "the store has it, too");
    }

    #[test]
    fn a_pepper_is_32_bytes_or_64_digits() {
        assert_eq!(parse(&[7; 32]), Some([7; 32]));
        assert_eq!(parse(format!("{}\n", "07".repeat(32)).as_bytes()), Some([7; 32]));
        assert_eq!(parse(b"short"), None);
        assert_eq!(parse("zz".repeat(32).as_bytes()), None);
    }
}

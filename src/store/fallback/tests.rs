use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const STORE: &str = "tp 00000001";

fn token(number: u8) -> TokenHash {
    TokenHash([number; 32])
}

fn record(generation: u64, value: &str) -> Record {
    Record { generation: Generation(generation), value: value.as_bytes().into() }
}

fn plan(number: u64) -> RecordKey {
    RecordKey::number(Kind::Plan, number)
}

fn changed(keys: &[(RecordKey, u64)]) -> Vec<(RecordKey, Generation)> {
    keys.iter().map(|(key, at)| (key.clone(), Generation(*at))).collect()
}

fn key(number: u8) -> RecordKey {
    RecordKey::bytes(Kind::Token, token(number).0)
}

async fn begun(folder: &Path) -> Fallback {
    let copy = Fallback::open(folder, 10).unwrap();
    copy.begin(STORE, Generation(5), vec![(plan(1), record(3, "one"))]).await.unwrap();
    copy
}

/// Returns when all that was asked for before is written.
async fn settled(copy: &Fallback) {
    copy.take(Taken::default()).await.unwrap();
}

#[tokio::test]
async fn what_was_taken_in_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let copy = begun(folder.path()).await;
    assert!(copy.copy(&token(1), record(4, "a token"), || true));
    let taken = Taken {
        changed: vec![],
        records: vec![(plan(2), record(7, "two")), (plan(1), record(2, "of long ago"))],
        stands: Some(Generation(7)),
    };
    copy.take(taken).await.unwrap();
    assert!(matches!(Fallback::open(folder.path(), 10), Err(StoreError::InUse)));
    drop(copy);
    let copy = Fallback::open(folder.path(), 10).unwrap();
    assert_eq!(copy.stands_for(STORE).unwrap(), Some(Generation(7)));
    assert_eq!(copy.stands_for("tp 00000002").unwrap(), None);
    assert_eq!(copy.token(&token(1)).unwrap(), Some(record(4, "a token")));
    assert_eq!(copy.token(&token(2)).unwrap(), None);
    let plans = copy.all(Kind::Plan).unwrap();
    assert_eq!(plans, [(plan(1), record(3, "one")), (plan(2), record(7, "two"))]);
}

#[tokio::test]
async fn what_changed_is_gone_when_that_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let copy = begun(folder.path()).await;
    for number in 1..4 {
        assert!(copy.copy(&token(number), record(4, "a token"), || true));
    }
    // Token 2 was written anew by commit 4, which is what was read.
    let changed = changed(&[(key(1), 8), (key(2), 4), (plan(1), 8)]);
    copy.take(Taken { changed, ..Taken::default() }).await.unwrap();
    drop(copy);
    let copy = Fallback::open(folder.path(), 10).unwrap();
    let has = |number| copy.token(&token(number)).unwrap().is_some();
    assert_eq!((has(1), has(2), has(3)), (false, true, true));
    assert_eq!(copy.all(Kind::Plan).unwrap(), []);
}

#[tokio::test]
async fn what_was_read_before_a_change_is_not_copied_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let copy = begun(folder.path()).await;
    let unchanged = Arc::new(AtomicBool::new(true));
    let still = |copy: &Fallback| {
        let still = Arc::clone(&unchanged);
        assert!(copy.copy(&token(1), record(4, "a token"), move || still.load(Ordering::SeqCst)));
    };
    // Before: it is taken out again. After: it is not put in.
    still(&copy);
    unchanged.store(false, Ordering::SeqCst);
    copy.take(Taken { changed: changed(&[(key(1), 9)]), ..Taken::default() }).await.unwrap();
    still(&copy);
    settled(&copy).await;
    assert_eq!(copy.token(&token(1)).unwrap(), None);
}

#[tokio::test]
async fn beginning_anew_leaves_nothing_of_before() {
    let folder = tempfile::tempdir().unwrap();
    let copy = begun(folder.path()).await;
    copy.copy(&token(1), record(4, "a token"), || true);
    let other = vec![(plan(9), record(2, "nine"))];
    copy.begin("tp 00000002", Generation(2), other.clone()).await.unwrap();
    assert_eq!(copy.stands_for(STORE).unwrap(), None);
    assert_eq!(copy.stands_for("tp 00000002").unwrap(), Some(Generation(2)));
    assert_eq!(copy.token(&token(1)).unwrap(), None);
    assert_eq!(copy.all(Kind::Plan).unwrap(), other);
}

#[tokio::test]
async fn no_more_tokens_are_kept_than_so_many() {
    let folder = tempfile::tempdir().unwrap();
    let copy = begun(folder.path()).await;
    for number in 0..100 {
        copy.copy(&token(number), record(4, "a token"), || true);
        if number % 7 == 0 {
            settled(&copy).await;
        }
    }
    settled(&copy).await;
    assert_eq!(copy.all(Kind::Token).unwrap().len(), 10);
    let newest = copy.token(&token(99)).unwrap();
    assert!(newest.is_some());
    drop(copy);
    let copy = Fallback::open(folder.path(), 10).unwrap();
    copy.copy(&token(200), record(4, "a token"), || true);
    settled(&copy).await;
    assert_eq!(copy.all(Kind::Token).unwrap().len(), 10);
}

/// A commit that concerns nothing in the copy costs no write of its own; that it is behind by some
/// of those only means that they are gone through again.
#[tokio::test]
async fn what_it_stands_for_is_never_ahead_and_seldom_far_behind() {
    let folder = tempfile::tempdir().unwrap();
    let copy = begun(folder.path()).await;
    for number in 0..1_000 {
        let at = Generation(10 + number);
        let changed = vec![(key(7), at)];
        copy.take(Taken { changed, stands: Some(at), ..Taken::default() }).await.unwrap();
        let stands = copy.stands_for(STORE).unwrap().unwrap();
        assert!(stands <= at && at.0 <= stands.0 + 300, "{stands:?} at {at:?}");
    }
}

#[tokio::test]
async fn a_damaged_copy_is_thrown_away() {
    let folder = tempfile::tempdir().unwrap();
    drop(begun(folder.path()).await);
    let path = folder.path().join(FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.iter_mut().skip(4_096).for_each(|byte| *byte ^= 0x5a);
    std::fs::write(&path, bytes).unwrap();
    let copy = Fallback::open(folder.path(), 10).unwrap();
    assert_eq!(copy.stands_for(STORE).unwrap(), None);
}

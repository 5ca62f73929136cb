use super::*;

const NOW: UnixMs = UnixMs(1_000_000);

fn key() -> CounterKey {
    "c7/q/e60000/p/plan-1".parse().unwrap()
}

fn window() -> Window {
    Window { start: UnixMs(990_000), end: Some(UnixMs(1_050_000)), reset: 2 }
}

fn open(folder: &tempfile::TempDir, process: u64) -> Shares {
    Shares::open(folder.path(), ProcessId(process), NOW).unwrap()
}

fn wish(whole: u64, want: u64) -> Wish {
    Wish { whole, first_call: 5, want, least: 1 }
}

#[test]
fn a_share_is_taken_once_however_often_the_process_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut taken = 0;
    for process in 1..20 {
        let shares = open(&folder, process);
        // Whoever comes later would take another share: the first one counts.
        taken += shares.take(&key(), &window(), wish(process * 100, 30)).unwrap();
    }
    assert_eq!(taken, 100);
}

#[test]
fn what_was_not_admitted_after_all_is_left_for_later() {
    let folder = tempfile::tempdir().unwrap();
    let shares = open(&folder, 1);
    assert_eq!(shares.take(&key(), &window(), wish(100, 90)).unwrap(), 90);
    shares.correct(&key(), &window(), 78).unwrap();
    assert_eq!(shares.take(&key(), &window(), wish(500, 60)).unwrap(), 60);
    drop(shares);
    let shares = open(&folder, 2);
    let debt = &shares.debts()[0];
    assert_eq!((debt.taken.units, debt.taken.first_call, debt.process), (72, 5, ProcessId(1)));
    assert_eq!(shares.take(&key(), &window(), wish(500, 60)).unwrap(), 28);
    let least = Wish { least: 2, ..wish(500, 60) };
    assert_eq!(shares.take(&key(), &window(), least).unwrap(), 0);
    assert!(shares.owes());
    shares.paid(debt).unwrap();
    assert!(!shares.owes());
    drop(shares);
    let shares = open(&folder, 3);
    let debts = shares.debts();
    assert_eq!((debts.len(), debts[0].process), (1, ProcessId(2)), "the first one is paid");
}

#[test]
fn windows_that_are_over_are_forgotten_and_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let shares = open(&folder, 1);
    let ever = Window { end: None, ..window() };
    for window in [window(), ever, Window { reset: 3, ..window() }] {
        assert_eq!(shares.take(&key(), &window, wish(10, 10)).unwrap(), 10);
        assert_eq!(shares.take(&key(), &window, wish(10, 10)).unwrap(), 0);
    }
    shares.sweep(UnixMs(1_050_000)).unwrap();
    drop(shares);
    let shares = Shares::open(folder.path(), ProcessId(2), UnixMs(1_050_000)).unwrap();
    let debts = shares.debts();
    assert_eq!((debts.len(), debts[0].window), (1, ever));
}

#[test]
fn a_torn_end_is_cut_off_and_damage_before_it_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let shares = open(&folder, 1);
    for want in [3, 4, 5] {
        shares.take(&key(), &window(), wish(100, want)).unwrap();
    }
    drop(shares);
    let path = folder.path().join(FILE);
    let whole = std::fs::read(&path).unwrap();
    let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for end in (whole.len() - 20)..whole.len() {
        std::fs::write(&path, &whole[..end]).unwrap();
        let left = open(&folder, 2).debts()[0].taken.units;
        assert_eq!(left, 7, "cut at {end}");
    }
    let mut damaged = whole.clone();
    damaged[second / 2] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let opened = Shares::open(folder.path(), ProcessId(2), NOW);
    assert!(matches!(opened, Err(StoreError::Damaged { .. })), "{opened:?}");
}

#[test]
fn a_folder_is_used_by_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder, 1);
    let second = Shares::open(folder.path(), ProcessId(2), NOW);
    assert!(matches!(second, Err(StoreError::InUse)), "{second:?}");
    drop(first);
    open(&folder, 2);
}

#[test]
fn the_file_stays_short() {
    let folder = tempfile::tempdir().unwrap();
    let shares = open(&folder, 1);
    shares.take(&key(), &window(), wish(1 << 40, 30_000)).unwrap();
    for units in 0..20_000 {
        shares.correct(&key(), &window(), 1).unwrap();
        if units % 100 == 0 {
            shares.sweep(NOW).unwrap();
        }
    }
    let bytes = std::fs::metadata(folder.path().join(FILE)).unwrap().len();
    assert!(bytes < 2 * REWRITE_BYTES_MIN, "{bytes}");
    drop(shares);
    assert_eq!(open(&folder, 2).debts()[0].taken.units, 10_000);
}

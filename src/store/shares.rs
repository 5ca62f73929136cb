//! What a gateway may admit of quotas by itself while the store is away: written to disk before
//! any of it is used, so that no restart on the same folder uses it twice.
//!
//! A share of a quota is taken once in a window, and used in blocks. A record says how many units
//! of it a process may have admitted: it is written and synced before they are, and corrected when
//! the store has been told how many there really were. Records of ended processes are debts, to be
//! told to the store by whoever runs on the folder next.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::domain::counter::{CounterKey, ProcessId, Window};
use crate::domain::time::UnixMs;
use crate::store::StoreError;

mod line;

use line::Line;

/// The file, and the one that is locked while a process uses it.
const FILE: &str = "local.journal";
const LOCK: &str = "local.lock";
/// The file is written anew when it has grown beyond this and to twice what it began with.
const REWRITE_BYTES_MIN: u64 = 1 << 20;

type Name = (CounterKey, Window);

/// The shares taken on one folder.
#[derive(Debug)]
pub struct Shares {
    folder: PathBuf,
    process: ProcessId,
    state: Mutex<State>,
    /// Debts of ended processes: mostly none, and then nobody has to look.
    debts: AtomicUsize,
    _lock: File,
}

#[derive(Debug)]
struct State {
    shares: BTreeMap<Name, Share>,
    file: File,
    bytes: u64,
    bytes_first: u64,
}

/// One quota in one window.
#[derive(Clone, Debug, Default)]
struct Share {
    /// All of it.
    whole: u64,
    /// What each process may have admitted of it.
    taken: BTreeMap<ProcessId, Taken>,
}

/// What one process may have admitted of a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The call with which it began on the counter: the store knows it by that.
    pub first_call: u64,
    /// Units, at most.
    pub units: u64,
    /// Whether the store was told by a later process.
    pub paid: bool,
}

/// What an ended process may have admitted, and the store has to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debt {
    /// Which counter.
    pub key: CounterKey,
    /// In which window.
    pub window: Window,
    /// Whose it is.
    pub process: ProcessId,
    /// How much.
    pub taken: Taken,
}

/// A wish for a block.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// The share, if none was taken in this window yet.
    pub whole: u64,
    /// The call with which the process began on the counter.
    pub first_call: u64,
    /// Units wanted.
    pub want: u64,
    /// Fewer units help nobody.
    pub least: u64,
}

impl Shares {
    /// Opens the folder for this process, and makes it if it is missing. Windows that are over at
    /// `now` are forgotten.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it open, [`StoreError::Damaged`] when a
    /// record is neither whole nor the unfinished last one, or when it cannot be read or written.
    pub fn open(folder: &Path, process: ProcessId, now: UnixMs) -> Result<Self, StoreError> {
        let io = |error| StoreError::io("opened", error);
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
        let lock = private().create(true).open(folder.join(LOCK)).map_err(io)?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => StoreError::InUse,
            std::fs::TryLockError::Error(error) => io(error),
        })?;
        let mut shares = BTreeMap::new();
        match std::fs::read(folder.join(FILE)) {
            Ok(bytes) => read(&bytes, &mut shares)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        shares.retain(|(_, window), _: &mut Share| window.end.is_none_or(|end| now < end));
        let (file, bytes) = rewrite(folder, &shares)?;
        let state = State { shares, file, bytes, bytes_first: bytes };
        let folder = folder.to_owned();
        let debts = AtomicUsize::new(0);
        let opened = Self { folder, process, state: Mutex::new(state), debts, _lock: lock };
        opened.debts.store(opened.debts().len(), Ordering::SeqCst);
        Ok(opened)
    }

    /// Takes a block of a share, and the share itself if it was not taken in this window. Answers
    /// how many units it has; 0: not even the least is left. It is on disk then: this blocks.
    ///
    /// # Errors
    /// When it cannot be written: nothing may be admitted.
    pub fn take(&self, key: &CounterKey, window: &Window, wish: Wish) -> Result<u64, StoreError> {
        let mut state = self.state.lock();
        let name = (key.clone(), *window);
        let mut share = state.shares.get(&name).cloned().unwrap_or_default();
        if share.taken.is_empty() {
            share.whole = wish.whole;
        }
        let left = share.left();
        if left < wish.least || left == 0 {
            return Ok(0);
        }
        let units = left.min(wish.want.max(wish.least));
        let Wish { first_call, .. } = wish;
        let taken = Taken { first_call, units: 0, paid: false };
        let taken = share.taken.entry(self.process).or_insert(taken);
        taken.units = taken.units.saturating_add(units);
        // A hand that was begun anew is known by its later call.
        taken.first_call = taken.first_call.max(first_call);
        let line = Line::of(&name, share.whole, self.process, taken);
        state.append(&line)?;
        state.file.sync_data().map_err(|error| StoreError::io("written", error))?;
        state.shares.insert(name, share);
        Ok(units)
    }

    /// Notes that so many units of the blocks of a window were not admitted, and will not be without
    /// another block. It is not synced: what was noted before is more, and so safe.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn correct(
        &self,
        key: &CounterKey,
        window: &Window,
        unused: u64,
    ) -> Result<(), StoreError> {
        let name = (key.clone(), *window);
        self.change(&name, self.process, |taken| {
            taken.units = taken.units.saturating_sub(unused);
        })
    }

    /// Whether any ended process's units are to be told to the store.
    #[must_use]
    pub fn owes(&self) -> bool {
        0 < self.debts.load(Ordering::SeqCst)
    }

    /// What ended processes may have admitted and nobody has told the store.
    #[must_use]
    pub fn debts(&self) -> Vec<Debt> {
        let state = self.state.lock();
        let debts = state.shares.iter().flat_map(|((key, window), share)| {
            let ended = share.taken.iter().filter(|(process, taken)| {
                **process != self.process && !taken.paid && 0 < taken.units
            });
            ended.map(|(process, taken)| Debt {
                key: key.clone(),
                window: *window,
                process: *process,
                taken: *taken,
            })
        });
        debts.collect()
    }

    /// Notes that the store was told.
    ///
    /// # Errors
    /// When it cannot be written; the store may then be told once more, which changes nothing.
    pub fn paid(&self, debt: &Debt) -> Result<(), StoreError> {
        let name = (debt.key.clone(), debt.window);
        self.change(&name, debt.process, |taken| taken.paid = true)?;
        self.debts.store(self.debts().len(), Ordering::SeqCst);
        Ok(())
    }

    /// Forgets windows that are over, and keeps the file short. Run it now and then.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn sweep(&self, now: UnixMs) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        state.shares.retain(|(_, window), _| window.end.is_none_or(|end| now < end));
        if state.bytes < REWRITE_BYTES_MIN.max(state.bytes_first.saturating_mul(2)) {
            return Ok(());
        }
        let (file, bytes) = rewrite(&self.folder, &state.shares)?;
        (state.file, state.bytes, state.bytes_first) = (file, bytes, bytes);
        Ok(())
    }

    fn change(
        &self,
        name: &Name,
        process: ProcessId,
        change: impl FnOnce(&mut Taken),
    ) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let Some(share) = state.shares.get_mut(name) else { return Ok(()) };
        let whole = share.whole;
        let Some(taken) = share.taken.get_mut(&process) else { return Ok(()) };
        change(taken);
        let line = Line::of(name, whole, process, taken);
        state.append(&line)
    }
}

impl Share {
    fn left(&self) -> u64 {
        let taken = self.taken.values().map(|taken| taken.units).fold(0, u64::saturating_add);
        self.whole.saturating_sub(taken)
    }
}

impl State {
    fn append(&mut self, line: &Line) -> Result<(), StoreError> {
        let bytes = line.encode();
        let written = self.file.write_all(&bytes);
        if let Err(error) = written {
            // Half a line may be there: what follows must not be joined to it.
            let _whole = self.file.set_len(self.bytes);
            return Err(StoreError::io("written", error));
        }
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(0));
        Ok(())
    }
}

/// Reads records; later ones of the same process on the same share replace earlier ones.
fn read(bytes: &[u8], shares: &mut BTreeMap<Name, Share>) -> Result<(), StoreError> {
    let mut torn = false;
    for bytes in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = Line::decode(bytes) else {
            torn = true;
            continue;
        };
        if torn {
            // A crash tears the end. This is something else.
            return Err(StoreError::Damaged { what: "the journal of local units" });
        }
        let share: &mut Share = shares.entry(line.name).or_default();
        share.whole = line.whole;
        share.taken.insert(line.process, line.taken);
    }
    if torn {
        tracing::warn!("the unfinished end of the journal of local units is cut off");
    }
    Ok(())
}

/// Writes the file anew, with what is known, in one step.
fn rewrite(folder: &Path, shares: &BTreeMap<Name, Share>) -> Result<(File, u64), StoreError> {
    let mut bytes = Vec::new();
    for (name, share) in shares {
        for (process, taken) in &share.taken {
            bytes.extend(Line::of(name, share.whole, *process, taken).encode());
        }
    }
    let (path, new) = (folder.join(FILE), folder.join("local.journal.new"));
    let written = || {
        let mut file = private().create(true).truncate(true).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(folder)?.sync_all()?;
        // What is appended goes behind it.
        private().append(true).open(&path)
    };
    let file = written().map_err(|error| StoreError::io("written", error))?;
    Ok((file, u64::try_from(bytes.len()).unwrap_or(u64::MAX)))
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests;

//! The file, read on a thread of its own while the lines before are being applied.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::feed::Chunk;
use crate::catalog::Catalog;
use crate::domain::token::TokenHash;
use crate::wire::imports::lines::{Line, Lines};
use crate::wire::imports::options::Options;
use crate::wire::imports::row::{Parsed, Row};
use crate::wire::imports::{Code, Fault};

/// Bytes that are cut into lines before those are handed on.
const PIECE_BYTES: usize = 16 << 10;
/// Bytes after which lines are handed on, however few they are.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Lines that do not wait for others when no more of the file has arrived.
const BATCH_IDLE: usize = 64;
/// Batches that wait to be applied.
const BATCHES_MAX: usize = 2;
/// The most lines of one file: for each, 16 bytes are kept to find a token that comes twice.
const LINES_MAX: u64 = 1_000_000;
/// How much less of a processor the threads of an import get than those of the data plane, where
/// both want it.
const NICE: i32 = 10;

/// A line on its way, without its token.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Item {
    pub(super) line: u64,
    pub(super) external: Option<String>,
    pub(super) mask: Option<String>,
    #[serde(default)]
    pub(super) warnings: Vec<Code>,
    pub(super) row: Result<Row, Vec<Fault>>,
}

/// What was read. A file that ends without [`Read::End`] broke off.
#[derive(Debug)]
pub(super) enum Read {
    /// Lines of one commit.
    Lines(Vec<Item>),
    /// All there is, with warnings about the file.
    End(Vec<String>),
    /// The file as a whole cannot be used.
    Failed(String),
}

/// Lets a thread be held up by requests rather than hold them up.
pub(super) fn stand_back() {
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "an import has the priority of a request");
    }
}

/// Cuts a file into lines, and reads them.
pub(super) struct Reader {
    catalog: Arc<Catalog>,
    options: Options,
    /// Lines of one commit.
    batch: usize,
    lines: Lines,
    waiting: Vec<Line>,
    waiting_bytes: usize,
    /// The line that was first with a token.
    seen: HashMap<u64, u64>,
    read: mpsc::Sender<Read>,
}

impl Reader {
    /// Starts the thread. It ends when the file does, or when nobody wants to hear of it.
    pub(super) fn spawn(
        catalog: Arc<Catalog>,
        options: Options,
        batch: usize,
        chunks: mpsc::Receiver<Chunk>,
    ) -> std::io::Result<mpsc::Receiver<Read>> {
        let (read, taken) = mpsc::channel(BATCHES_MAX);
        let reader = Self {
            lines: Lines::new(options.format),
            catalog,
            options,
            batch,
            waiting: Vec::new(),
            waiting_bytes: 0,
            seen: HashMap::new(),
            read,
        };
        let thread = std::thread::Builder::new().name("import-reader".to_owned());
        thread.spawn(move || {
            stand_back();
            reader.run(chunks);
        })?;
        Ok(taken)
    }

    fn run(mut self, mut chunks: mpsc::Receiver<Chunk>) {
        while let Some(chunk) = chunks.blocking_recv() {
            let done = match chunk {
                Chunk::Data(data) => self.feed(&data, chunks.is_empty()),
                Chunk::End => self.end(),
                Chunk::TooLarge => Err("the file is too large".to_owned()),
            };
            match done {
                Ok(true) => {}
                Ok(false) => return,
                Err(reason) => {
                    // Nobody may be there to hear it.
                    let _unheard = self.read.blocking_send(Read::Failed(reason));
                    return;
                }
            }
        }
    }

    /// Whether more is wanted. Behind an `idle` client smaller commits are made.
    fn feed(&mut self, data: &[u8], idle: bool) -> Result<bool, String> {
        for piece in data.chunks(PIECE_BYTES) {
            self.lines.feed(piece, &mut self.waiting)?;
            self.waiting_bytes = self.waiting_bytes.saturating_add(piece.len());
            let full = BATCH_BYTES_MAX <= self.waiting_bytes;
            if !self.hand_on(if full { 1 } else { self.batch })? {
                return Ok(false);
            }
        }
        self.hand_on(if idle { BATCH_IDLE.min(self.batch) } else { self.batch })
    }

    fn end(&mut self) -> Result<bool, String> {
        self.lines.end(&mut self.waiting)?;
        if self.hand_on(1)? {
            let end = Read::End(self.lines.warnings().to_vec());
            // Nobody may be there to hear it.
            let _unheard = self.read.blocking_send(end);
        }
        Ok(false)
    }

    /// Hands on what waits, while there are at least `least` lines; whether more is wanted.
    fn hand_on(&mut self, least: usize) -> Result<bool, String> {
        let mut waiting = std::mem::take(&mut self.waiting);
        while least <= waiting.len() {
            let rest = waiting.split_off(self.batch.min(waiting.len()));
            let lines = std::mem::replace(&mut waiting, rest);
            let items = lines.into_iter().map(|line| self.item(line)).collect();
            self.waiting_bytes = 0;
            if LINES_MAX < u64::try_from(self.seen.len()).unwrap_or(u64::MAX) {
                return Err(format!("the file has more than {LINES_MAX} lines"));
            }
            if self.read.blocking_send(Read::Lines(items)).is_err() {
                return Ok(false);
            }
        }
        self.waiting = waiting;
        Ok(true)
    }

    /// Reads a line; a token that came before is a fault.
    fn item(&mut self, line: Line) -> Item {
        let Line { number: line, members } = line;
        let members = match members {
            Ok(members) => members,
            Err(fault) => {
                let row = Err(vec![fault]);
                return Item { line, external: None, mask: None, warnings: Vec::new(), row };
            }
        };
        let Parsed { external, mask, strange, mut row } =
            Parsed::read(members, &self.options, self.catalog.pepper());
        let mut warnings = Vec::new();
        if let Ok(found) = &row {
            let first = *self.seen.entry(TokenHash(found.hash).prefix()).or_insert(line);
            warnings.extend(found.weak.then_some(Code::WeakKey));
            warnings.extend(strange.then_some(Code::UnknownField));
            if first != line {
                let text = format!("line {first} has the same token");
                let mut fault = Fault::new(Code::DuplicateInFile, "KeyID", text);
                fault.first_line = Some(first);
                row = Err(vec![fault]);
            }
        }
        Item { line, external, mask, warnings, row }
    }
}

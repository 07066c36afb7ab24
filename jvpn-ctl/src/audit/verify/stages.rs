//! The three stages of a verification, each on a thread: reading, what a line says, and (in the pass itself) its hash.
//!
//! Owns how lines are cut and handed on, in order and within a bound. The chain is one long hash and cannot be divided, so
//! everything else is done beside it. Must never decide which fault is named: the pass puts both answers together line by
//! line.
//!
//! ```text
//! files ─► read ─┬─► look (JSON, numbers, versions) ─┐
//!                └─► pass: chain ────────────────────┴─► pass: faults, checkpoints
//! ```

use super::super::AuditError;
use super::What;
use super::progress::Progress;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

/// Bytes read at once, and of a block: large against a line, small against a segment.
const READ: usize = 1 << 20;
/// Longest line that can be a record; one with the longest names and details has a tenth of it.
const LINE_MAX: u64 = 64 << 10;
/// Blocks that wait between two stages; more would only be memory.
const WAITING: usize = 2;

/// Some lines of a segment, one after another.
#[derive(Debug)]
pub(super) struct Block {
    /// Which of the segments.
    pub(super) segment: usize,
    /// Number of its first line in the segment, from 1.
    pub(super) line: u64,
    /// Where that line begins in the file.
    pub(super) offset: u64,
    bytes: Vec<u8>,
    /// Where each line ends, its line feed included.
    ends: Vec<usize>,
    /// What stands behind them.
    pub(super) rest: Rest,
}

/// What follows a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// More lines of this segment.
    More,
    /// Nothing: the segment is over.
    End,
    /// This many bytes of a line without its end.
    Unfinished(u64),
    /// A line longer than any.
    TooLong,
}

impl Block {
    /// How many lines.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Where a line lies in the block, its line feed included.
    pub(super) fn place(&self, index: usize) -> Range<usize> {
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        start..self.ends.get(index).copied().unwrap_or(start)
    }

    /// Every line without its line feed.
    pub(super) fn lines(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| {
            let Range { start, end } = self.place(index);
            self.bytes.get(start..end.saturating_sub(1)).unwrap_or_default()
        })
    }
}

/// What the lines of a block say, up to the first that says nothing: its numbers.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) seqs: Vec<u64>,
    pub(super) wrong: Option<What>,
}

/// What the pass takes from both stages; for each block one look.
pub(super) struct Stages {
    pub(super) blocks: Receiver<Result<Arc<Block>, AuditError>>,
    pub(super) looks: Receiver<Looked>,
}

impl Stages {
    /// Starts both. They end with the record, at the first line that says nothing, or when nobody takes what they give.
    pub(super) fn start<'scope>(scope: &'scope Scope<'scope, '_>, segments: &'scope [PathBuf], partial: bool) -> Self {
        let (give, blocks) = sync_channel(WAITING);
        let (to_look, to_be_looked_at) = sync_channel::<Arc<Block>>(WAITING);
        let (say, looks) = sync_channel(WAITING);
        scope.spawn(move || {
            if let Err(Over::Failed(error)) = read(segments, &give, &to_look) {
                // Without a pass nobody wants to know.
                let _ = give.send(Err(error));
            }
        });
        scope.spawn(move || {
            let mut progress = Progress::default();
            for block in to_be_looked_at {
                let looked = look(&block, &mut progress, partial);
                let wrong = looked.wrong.is_some();
                if say.send(looked).is_err() || wrong {
                    return;
                }
            }
        });
        Self { blocks, looks }
    }
}

fn look(block: &Block, progress: &mut Progress, partial: bool) -> Looked {
    let mut seqs = Vec::with_capacity(block.len());
    for line in block.lines() {
        match progress.record(line, partial) {
            Ok(seq) => seqs.push(seq),
            Err(what) => return Looked { seqs, wrong: Some(what) },
        }
    }
    Looked { seqs, wrong: None }
}

/// Why reading ends before the record does.
enum Over {
    /// The pass is done.
    Enough,
    Failed(AuditError),
}

fn read(
    segments: &[PathBuf],
    give: &SyncSender<Result<Arc<Block>, AuditError>>,
    look: &SyncSender<Arc<Block>>,
) -> Result<(), Over> {
    for (segment, path) in segments.iter().enumerate() {
        let io = |cause| Over::Failed(AuditError::io(path, cause));
        let mut reader = BufReader::with_capacity(READ, File::open(path).map_err(io)?);
        let (mut line, mut offset) = (1, 0);
        loop {
            let mut block = Block {
                segment,
                line,
                offset,
                bytes: Vec::with_capacity(READ + READ / 8),
                ends: Vec::new(),
                rest: Rest::More,
            };
            while block.rest == Rest::More && block.bytes.len() < READ {
                let count = reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut block.bytes).map_err(io)?;
                match (count as u64, block.bytes.last()) {
                    (0, _) => block.rest = Rest::End,
                    (_, Some(b'\n')) => block.ends.push(block.bytes.len()),
                    (LINE_MAX, _) => block.rest = Rest::TooLong,
                    (count, _) => block.rest = Rest::Unfinished(count),
                }
            }
            line += block.len() as u64;
            offset += block.ends.last().map_or(0, |end| *end as u64);
            let (is_last, block) = (block.rest != Rest::More, Arc::new(block));
            // A look that ended has found something: the pass comes to it.
            let _ = look.send(Arc::clone(&block));
            give.send(Ok(block)).map_err(|_| Over::Enough)?;
            if is_last {
                break;
            }
        }
    }
    Ok(())
}

//! What is wrong with a record, and where.
//!
//! Owns the words. Must never say more than the check that failed has shown.

use super::super::key::RecordPublicKey;
use jvpn_common::event::{Hash, LineError};
use jvpn_common::ids::SessionId;
use std::fmt;
use std::path::{Path, PathBuf};

/// The first thing that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The segment, or the file of checkpoints.
    pub file: PathBuf,
    /// Line of the file, from 1.
    pub line: Option<u64>,
    /// Number of the record, as it should be.
    pub record: Option<u64>,
    /// Where the line begins in the file, in bytes.
    pub offset: Option<u64>,
    /// What it is.
    pub what: What,
}

/// What does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum What {
    /// The chain.
    #[error("{0}")]
    Line(LineError),
    /// It hashes, and is none of our records.
    #[error("it is no record: {0}")]
    NotARecord(String),
    /// In the middle of the record.
    #[error("the line does not end")]
    Unfinished,
    /// Record 1 must follow nothing.
    #[error("record 1 names a line before it")]
    Beginning,
    /// The first lines are not there.
    #[error(
        "the record begins with number {first}: {missing} before it are missing (--partial when they are kept elsewhere)"
    )]
    Begins {
        /// The first one there is.
        first: u64,
        /// How many are not.
        missing: u64,
    },
    /// A number out of order.
    #[error("its number is {found} where {next} is next, and no GAP names what is between")]
    Number {
        /// What it says.
        found: u64,
        /// What would be right.
        next: u64,
    },
    /// A version out of order.
    #[error("session {session} goes from version {before} to {found}, and no GAP names what is between")]
    Version {
        /// Which session.
        session: SessionId,
        /// Its last transition in the record.
        before: u64,
        /// This one.
        found: u64,
    },
    /// Not a line of ours.
    #[error("this is no checkpoint")]
    NotACheckpoint,
    /// The signature does not verify.
    #[error("the checkpoint's signature does not hold: it was changed, or made by somebody else")]
    Signature,
    /// Signed by a key nobody gave.
    #[error("the checkpoint is signed with the key {key}, which was not given with --key")]
    ForeignKey {
        /// The key it names.
        key: RecordPublicKey,
    },
    /// The chain was written anew.
    #[error("the record differs from what was signed at {ts}: its hash was {signed} then and is {head} now")]
    Differs {
        /// As signed.
        signed: Hash,
        /// As found.
        head: Hash,
        /// When it was signed.
        ts: String,
    },
    /// A number that was signed is in no line.
    #[error("record {seq} was signed and is not there")]
    Skipped {
        /// The number.
        seq: u64,
    },
    /// The end was cut off.
    #[error("the record ends {}, but record {signed} was signed at {ts}", Ending(*.last))]
    Ends {
        /// The last one there is.
        last: Option<u64>,
        /// What was signed.
        signed: u64,
        /// When.
        ts: String,
    },
}

struct Ending(Option<u64>);

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(last) => write!(f, "after record {last}"),
            None => f.write_str("before it begins"),
        }
    }
}

impl What {
    /// Its stable name in JSON.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Line(LineError::NotARecord(_)) | Self::NotARecord(_) => "NOT_A_RECORD",
            Self::Line(LineError::Changed) => "CHANGED",
            Self::Line(LineError::NotNext { .. }) => "NOT_NEXT",
            Self::Unfinished => "UNFINISHED",
            Self::Beginning | Self::Begins { .. } => "BEGINNING",
            Self::Number { .. } => "NUMBER",
            Self::Version { .. } => "VERSION",
            Self::NotACheckpoint => "NOT_A_CHECKPOINT",
            Self::Signature => "SIGNATURE",
            Self::ForeignKey { .. } => "FOREIGN_KEY",
            Self::Differs { .. } => "DIFFERS_FROM_CHECKPOINT",
            Self::Skipped { .. } | Self::Ends { .. } => "SIGNED_AND_MISSING",
        }
    }
}

impl Fault {
    pub(super) fn at(file: &Path, line: u64, record: Option<u64>, offset: u64, what: What) -> Self {
        Self { file: file.to_path_buf(), line: Some(line), record, offset: Some(offset), what }
    }

    pub(super) fn at_checkpoint(file: PathBuf, record: Option<u64>, what: What) -> Self {
        Self { file, line: None, record, offset: None, what }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(record) = self.record {
            write!(f, ", record {record}")?;
        }
        if let (Some(line), Some(offset)) = (self.line, self.offset) {
            write!(f, " (line {line}, byte {offset})")?;
        }
        write!(f, ": {}", self.what)
    }
}

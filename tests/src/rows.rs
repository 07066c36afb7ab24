//! Owns the evidence of which rows of the transition table were taken: what runs recorded, noted in one file a step, and
//! the table made of all files. Must never count what a test only says of itself: a row counts when a record of it
//! replayed, and the two that are in no record when the engine took them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use jvpn_common::session::transition::{On, Row, TABLE};
use jvpn_ctl::audit::{self, dir_of, why};

/// The file to which the runs of a step add what they recorded; `cargo xtask test` names it, and nothing is noted without.
const VARIABLE: &str = "JVPN_ROWS";
/// More sessions than any run of a lab makes.
const SESSIONS_MAX: usize = 100_000;

/// How often each row was taken.
pub type Rows = BTreeMap<usize, u64>;

/// Where a run happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Seeded, with one clock for all.
    Simulation,
    /// Real product, real network, real clock.
    Lab,
}

impl Place {
    const ALL: [Place; 2] = [Place::Simulation, Place::Lab];

    fn word(self) -> &'static str {
        match self {
            Place::Simulation => "sim",
            Place::Lab => "lab",
        }
    }
}

/// Whether an event is in no record: a session that was never confirmed is in memory only.
pub fn is_in_memory(row: &Row) -> bool {
    matches!(row.on, On::BirthTimeout | On::Abandon)
}

/// A row of the table as people read it.
#[must_use]
pub fn row_name(index: usize) -> String {
    let Some(row) = TABLE.get(index) else { return format!("no row {index}") };
    let from = match row.from.len() {
        5 => "live".into(),
        3 => "bound".into(),
        _ => row.from.iter().map(|place| place.name()).collect::<Vec<_>>().join(", "),
    };
    let to = row.to.map_or("unchanged", |place| place.name());
    format!("{:>2}. {from} \u{2192} {to} on {}: {}", index + 1, row.on, row.reason)
}

/// What a sound session of one gateway cannot meet, and what stands for it there.
fn thrown(row: &Row, place: Place) -> Option<&'static str> {
    match row.on {
        // A lab has the real cause: a second gateway on a copy of the first one's state directory.
        On::NewerOwner if place == Place::Lab => None,
        On::NewerOwner => Some("switch: a newer owner's epoch is shown to the engine"),
        On::Broken => Some("switch: an invariant is said to be broken"),
        On::Compromise => Some("operator: terminate --reason key-compromise"),
        _ => None,
    }
}

/// Adds what a run recorded to the step's file, when there is one.
///
/// # Errors
/// The file cannot be written.
pub fn note(place: Place, rows: &Rows) -> Result<()> {
    let Some(file) = std::env::var_os(VARIABLE) else { return Ok(()) };
    append(Path::new(&file), &lines(place, rows))
}

/// The same for the record of a gateway, each session of which is replayed; one that does not replay is noted as that.
///
/// # Errors
/// The file cannot be written.
pub fn note_record(state: &Path) -> Result<()> {
    let Some(file) = std::env::var_os(VARIABLE) else { return Ok(()) };
    let text = match of_record(&dir_of(state)) {
        Ok(rows) => lines(Place::Lab, &rows),
        Err(error) => format!("wrong\t{}\n", format!("{error:#}").replace(['\n', '\t'], " ")),
    };
    append(Path::new(&file), &text)
}

fn append(file: &Path, text: &str) -> Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file).context(VARIABLE)?;
    // One write a run: two processes may note at once.
    file.write_all(text.as_bytes()).context(VARIABLE)
}

fn lines(place: Place, rows: &Rows) -> String {
    rows.iter().fold(String::new(), |mut text, (row, count)| {
        let _ = writeln!(text, "{}\t{row}\t{count}", place.word());
        text
    })
}

/// Rows taken by the sessions of a record, all of which replay.
///
/// # Errors
/// A file cannot be read, or a session does not replay: the first difference.
pub fn of_record(dir: &Path) -> Result<Rows> {
    let mut rows = Rows::new();
    if !dir.exists() {
        return Ok(rows);
    }
    for id in audit::sessions(dir, "", SESSIONS_MAX)? {
        match why::why(dir, &id.to_string(), None) {
            Ok(why) => {
                let taken = why.steps.iter().filter_map(|step| step.asked.iter().find(|row| row.taken));
                // People count from 1, the table from 0.
                taken.for_each(|row| *rows.entry(row.row.saturating_sub(1)).or_default() += 1);
            }
            // Refused before it was born, or described by a client: no transition of this gateway.
            Err(why::WhyError::NoInputs(_)) => {}
            Err(error) => return Err(error).context(id.to_string()),
        }
    }
    Ok(rows)
}

/// What was noted, by row, place and step.
#[derive(Debug, Default)]
pub struct Evidence(BTreeMap<(usize, Place, String), u64>);

impl Evidence {
    /// Reads a directory with one file a step.
    ///
    /// # Errors
    /// There is none, a line cannot be read, or a run noted that its record does not replay.
    pub fn read(dir: &Path) -> Result<Self> {
        let mut evidence = Self::default();
        let files = match fs::read_dir(dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("nothing was noted in {}: run `cargo xtask test`, this step is its last look", dir.display())
            }
            files => files.with_context(|| dir.display().to_string())?,
        };
        for file in files {
            let path = file?.path();
            let step = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            text.lines().try_for_each(|line| evidence.line(&step, line)).with_context(|| format!("noted by {step}"))?;
        }
        Ok(evidence)
    }

    fn line(&mut self, step: &str, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split('\t').collect();
        let [place, row, count] = words.as_slice() else {
            bail!("{}", line.trim_start_matches("wrong\t"));
        };
        let place = Place::ALL.into_iter().find(|known| known.word() == *place).context("no such place")?;
        let row: usize = row.parse().context("a row's number")?;
        ensure!(row < TABLE.len(), "the table has no row {row}");
        *self.0.entry((row, place, step.to_owned())).or_default() += count.parse::<u64>().context("a count")?;
        Ok(())
    }

    /// Rows that nobody took, by their numbers in `docs/lifecycle.md`.
    #[must_use]
    pub fn missing(&self) -> Vec<usize> {
        let taken = |row: &usize| self.0.iter().any(|((seen, ..), &count)| seen == row && count > 0);
        (0..TABLE.len()).filter(|row| !taken(row)).map(|row| row + 1).collect()
    }

    /// One line a row: what it is, how often the simulation took it, and each step of the lab that did.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (number, row) in TABLE.iter().enumerate() {
            let to = row.to.map_or("unchanged", |to| to.name());
            let from: Vec<&str> = row.from.iter().map(|place| place.name()).collect();
            let _ = writeln!(text, "{:>2} {} -> {to}: {}, {}", number + 1, from.join("|"), row.on.name(), row.reason);
            let of = |wanted: Place| {
                let seen = self.0.iter().filter(move |((seen, place, _), _)| *seen == number && *place == wanted);
                let runs: Vec<String> = seen.map(|((.., step), count)| format!("{step} {count}")).collect();
                if runs.is_empty() {
                    return "-".to_owned();
                }
                let mark = thrown(row, wanted).map(|mark| format!("  [{mark}]")).unwrap_or_default();
                runs.join(", ") + &mark
            };
            let memory = if is_in_memory(row) { "  [in memory only]" } else { "" };
            let _ = writeln!(text, "     simulation: {}  lab: {}{memory}", of(Place::Simulation), of(Place::Lab));
        }
        text
    }
}

#[cfg(test)]
mod tests;

//! What following a table must not forget: how far it is, and which prospect each of its rows became. The first two
//! are replaced by rename, the others appended to:
//!
//! - `FILE`: a JSON object, how far it is;
//! - `FILE.ids`: `<legacy id>\t<prospect id>` a line, and `\tmade` if a row of the table made that prospect, sorted by bytes. Read from front
//!   to back, never held in memory;
//! - `FILE.new`: the same for rows that came since, in no order; at most [`FRESH_MAX`], which are held in memory;
//! - `FILE.imports`: the imports, an id a line, for who wants to take all of it back.
//!
//! Ids of rows may be personal: the files are readable by their owner only.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Rows that are held in memory before they are merged into the sorted file.
const FRESH_MAX: usize = 200_000;

/// How far it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// What is followed: server, table and source. Another one cannot go on with these files.
    pub what: String,
    /// Rows up to this id are copied; none once all are.
    pub copied_to: Option<String>,
    /// Whether all rows are copied.
    pub copied: bool,
    /// Newest `updatedAt` that is done, as the table's server writes it.
    pub mark: Option<String>,
}

/// What a row of the table became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// The row's id in the table.
    pub id: String,
    /// The prospect.
    pub prospect: Uuid,
    /// Whether it or another row of the table made the prospect: it was not there before.
    pub made: bool,
}

/// The files.
pub(super) struct State {
    file: PathBuf,
    /// How far it is.
    pub progress: Progress,
    fresh: BTreeMap<String, (Uuid, bool)>,
    appended: File,
}

impl State {
    /// Opens the files of an earlier run, or makes them.
    ///
    /// # Errors
    /// If they cannot be read or written, or are of something else that was followed.
    pub(super) fn open(file: &Path, what: &str) -> anyhow::Result<Self> {
        let about = || format!("the state file {}", file.display());
        let progress = match std::fs::read(file) {
            Ok(text) => serde_json::from_slice(&text).with_context(about)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Progress { what: what.to_owned(), ..Progress::default() }
            }
            Err(error) => return Err(error).with_context(about),
        };
        anyhow::ensure!(
            progress.what == what,
            "{} belongs to {}, not to {what}: name another with --state",
            about(),
            progress.what
        );
        let appended = beside(file, "new");
        let mut fresh = BTreeMap::new();
        if let Ok(known) = File::open(&appended) {
            for line in BufReader::new(known).lines() {
                // The last line may be cut off by a crash; its row is sent again, because the mark was not moved yet.
                if let Some(Known { id, prospect, made }) = parse(&line?) {
                    fresh.insert(id, (prospect, made));
                }
            }
        }
        let appended = OpenOptions::new().append(true).create(true).mode(0o600).open(&appended).with_context(about)?;
        // Two at once would write over each other's files.
        let held = appended.try_lock();
        held.map_err(|_| anyhow::anyhow!("{} is in use by another run: end that first", about()))?;
        let state = Self { file: file.to_owned(), progress, fresh, appended };
        state.save()?;
        Ok(state)
    }

    /// Writes how far it is. What was learned of rows before is on the disk then.
    ///
    /// # Errors
    /// If that cannot be written.
    pub(super) fn save(&self) -> anyhow::Result<()> {
        self.appended.sync_data()?;
        replace(&self.file, |out| Ok(serde_json::to_writer(out, &self.progress)?))
    }

    /// Notes an import in `FILE.imports`, so that all of them can be taken back, the newest first.
    ///
    /// # Errors
    /// If that cannot be written.
    pub(super) fn note_import(&self, id: &str) -> anyhow::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(beside(&self.file, "imports"))?;
        Ok(file.write_all(format!("{id}\n").as_bytes())?)
    }

    /// Learns which prospects rows became.
    ///
    /// # Errors
    /// If that cannot be written.
    pub(super) fn learn(&mut self, rows: &[Known]) -> anyhow::Result<()> {
        let mut text = String::new();
        for row in rows {
            let known = self.fresh.get(&row.id).copied();
            let made = row.made || known.is_some_and(|(prospect, made)| made && prospect == row.prospect);
            if known != Some((row.prospect, made)) {
                text.push_str(&line(&Known { made, ..row.clone() }));
                self.fresh.insert(row.id.clone(), (row.prospect, made));
            }
        }
        self.appended.write_all(text.as_bytes())?;
        if self.fresh.len() > FRESH_MAX { self.merge(&HashSet::new(), &HashSet::new()) } else { Ok(()) }
    }

    /// The rows that are known, sorted by their ids' bytes.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn known(&self) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Known>> + '_> {
        let sorted = match File::open(beside(&self.file, "ids")) {
            Ok(file) => Some(BufReader::new(file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).context("the sorted ids of the state"),
        };
        let sorted = sorted.into_iter().flat_map(BufReader::lines).map(|line| {
            let line = line?;
            parse(&line).with_context(|| "the sorted ids of the state are damaged: begin again with another --state")
        });
        let fresh =
            self.fresh.iter().map(|(id, (prospect, made))| Known { id: id.clone(), prospect: *prospect, made: *made });
        Ok(Merged { sorted: Box::new(sorted), fresh: Box::new(fresh), next: (None, None), begun: false })
    }

    /// Merges what came since into the sorted file, without the rows that are gone. Of a prospect in `made` its other rows remember
    /// that the table made it.
    ///
    /// # Errors
    /// If that cannot be written.
    pub(super) fn merge(&mut self, gone: &HashSet<String>, made: &HashSet<Uuid>) -> anyhow::Result<()> {
        replace(&beside(&self.file, "ids"), |out| {
            for row in self.known()? {
                let mut row = row?;
                row.made |= made.contains(&row.prospect);
                if !gone.contains(&row.id) {
                    out.write_all(line(&row).as_bytes())?;
                }
            }
            Ok(())
        })?;
        // Lines that stay in this file after a crash here say the same as the sorted one, but for rows that are gone: those are
        // found gone again, and their prospects deleted already.
        self.fresh.clear();
        self.appended.set_len(0)?;
        Ok(())
    }
}

fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// A row's line. Ids hold no tabs or line breaks of their own: those are written as escapes.
fn line(row: &Known) -> String {
    let escaped = row.id.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r");
    format!("{escaped}\t{}{}\n", row.prospect.simple(), if row.made { "\tmade" } else { "" })
}

fn parse(line: &str) -> Option<Known> {
    let (escaped, rest) = line.split_once('\t')?;
    let (prospect, made) = match rest.split_once('\t') {
        None => (rest, false),
        Some((prospect, "made")) => (prospect, true),
        Some(_) => return None,
    };
    let (mut id, mut letters) = (String::with_capacity(escaped.len()), escaped.chars());
    while let Some(letter) = letters.next() {
        id.push(match letter {
            '\\' => match letters.next()? {
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                other => other,
            },
            other => other,
        });
    }
    Some(Known { id, prospect: Uuid::try_parse(prospect).ok()?, made })
}

/// Writes a file anew, readable by its owner only: whole, or not at all.
fn replace(file: &Path, write: impl FnOnce(&mut BufWriter<File>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let temporary = beside(file, "tmp");
    let about = || format!("writing {}", temporary.display());
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
    let mut out = BufWriter::new(opened.with_context(about)?);
    write(&mut out)?;
    out.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(about)?.sync_all()?;
    std::fs::rename(&temporary, file).with_context(about)
}

/// Two sorted lists as one; of the same id, what came later counts.
struct Merged<'a> {
    sorted: Box<dyn Iterator<Item = anyhow::Result<Known>> + 'a>,
    fresh: Box<dyn Iterator<Item = Known> + 'a>,
    next: (Option<Known>, Option<Known>),
    begun: bool,
}

impl Iterator for Merged<'_> {
    type Item = anyhow::Result<Known>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut step = || -> anyhow::Result<Option<Known>> {
            if !self.begun {
                self.next = (self.sorted.next().transpose()?, self.fresh.next());
                self.begun = true;
            }
            let order = match &self.next {
                (None, None) => return Ok(None),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(sorted), Some(fresh)) => sorted.id.cmp(&fresh.id),
            };
            let (mut older, mut newer) = (None, None);
            if order.is_le() {
                older = std::mem::replace(&mut self.next.0, self.sorted.next().transpose()?);
            }
            if order.is_ge() {
                newer = std::mem::replace(&mut self.next.1, self.fresh.next());
            }
            // Who made it is not forgotten because a later row says nothing new.
            if let (Some(older), Some(newer)) = (&older, &mut newer) {
                newer.made |= older.made && older.prospect == newer.prospect;
            }
            Ok(newer.or(older))
        };
        step().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("prospectus-state-{}", Uuid::new_v4().simple()));
            std::fs::create_dir(&path).expect("a directory");
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn row(id: &str, number: u128, made: bool) -> Known {
        Known { id: id.to_owned(), prospect: Uuid::from_u128(number), made }
    }

    fn known(state: &State) -> Vec<Known> {
        state.known().expect("readable").map(|row| row.expect("a row")).collect()
    }

    #[test]
    fn what_was_learned_is_there_again_sorted_and_each_id_once() {
        let directory = Directory::new();
        let file = directory.0.join("state");
        let mut state = State::open(&file, "a table").expect("new files");
        let learned = [row("b", 1, true), row("a\tb\n\\", 2, false), row("c", 3, true), row("d", 6, true)];
        state.learn(&learned).expect("written");
        state.merge(&HashSet::new(), &HashSet::new()).expect("merged");
        state.learn(&[row("b", 4, false), row("aa", 5, true), row("c", 3, false)]).expect("written");
        state.learn(&[row("aa", 5, false)]).expect("written");
        state.progress.mark = Some("2024-01-01".into());
        state.save().expect("written");
        let expected =
            [row("a\tb\n\\", 2, false), row("aa", 5, true), row("b", 4, false), row("c", 3, true), row("d", 6, true)];
        assert_eq!(known(&state), expected);
        drop(state);

        let mut state = State::open(&file, "a table").expect("the files");
        assert_eq!((known(&state), state.progress.mark.as_deref()), (expected.to_vec(), Some("2024-01-01")));
        state.merge(&HashSet::from(["b".to_owned()]), &HashSet::from([Uuid::from_u128(2)])).expect("merged");
        assert_eq!(known(&state).len(), 4, "what is gone is forgotten");
        assert_eq!(
            known(&state)[0],
            row("a\tb\n\\", 2, true),
            "another row of the same prospect remembers who made it"
        );
        assert!(State::open(&file, "another").is_err(), "the state of another table");
        assert!(State::open(&file, "a table").is_err(), "two at once");

        use std::os::unix::fs::PermissionsExt as _;
        for ending in ["", ".ids", ".new"] {
            let mode =
                std::fs::metadata(directory.0.join(format!("state{ending}"))).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "state{ending}");
        }
    }

    #[test]
    fn a_line_that_a_crash_cut_off_is_left_out() {
        let directory = Directory::new();
        let file = directory.0.join("state");
        let mut state = State::open(&file, "a table").expect("new files");
        state.learn(&[row("a", 1, false)]).expect("written");
        state.appended.write_all(b"b\t0000").expect("written");
        drop(state);
        assert_eq!(known(&State::open(&file, "a table").expect("the files")), [row("a", 1, false)]);
    }
}

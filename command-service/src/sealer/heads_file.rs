//! The file that heads are kept in outside of the database, a line of JSON each, in order: what was signed before a crash or by another
//! service is added from the database, so none is missing.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

use event_store::proof::SignedHead;
use event_store::proof::heads::{self, StoredHead};
use tokio_postgres::Client;

use super::SealerError;

/// Bytes at the end of the file in which its last line is looked for.
const TAIL_BYTES: u64 = 64 << 10;
/// Heads that are added at a time.
const PAGE: i64 = 1_000;

/// What every line begins with.
const LINE_BEGINS: &[u8] = b"{\"log_id\":";

/// The end of a file.
fn tail(file: &mut File) -> std::io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    file.read_to_end(&mut tail)?;
    Ok(tail)
}

/// The file, open for adding to it.
#[derive(Debug)]
pub(super) struct HeadsFile {
    path: PathBuf,
    file: File,
    newest: Option<SignedHead>,
}

impl HeadsFile {
    /// Opens the file, making it where it is not there. A last line that was not written to its end is removed, once the one before it
    /// has shown that this is a file of heads.
    pub(super) fn open(path: PathBuf) -> Result<Self, SealerError> {
        let failed = |reason: String| SealerError::File { path: path.display().to_string(), reason };
        let mut file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .map_err(|error| failed(error.to_string()))?;
        let tail = tail(&mut file).map_err(|error| failed(error.to_string()))?;
        let (whole, rest) = tail.split_at(tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        let head = |line: &[u8]| serde_json::from_slice::<SignedHead>(line).ok();
        let last = whole.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
        let mut newest = match last {
            Some(line) => Some(head(line).ok_or_else(|| failed("its last line is no head".to_owned()))?),
            // Nothing but the beginning of a first line, which is how all of them begin, or somebody else's file.
            None if rest.is_empty() || LINE_BEGINS.starts_with(rest) || rest.starts_with(LINE_BEGINS) => None,
            None => return Err(failed("it is no file of heads".to_owned())),
        };
        if let Some(unbroken) = head(rest) {
            // Only the line break is missing.
            file.write_all(b"\n").map_err(|error| failed(error.to_string()))?;
            newest = Some(unbroken);
        } else if !rest.is_empty() {
            let cut = || file.set_len(file.metadata()?.len() - rest.len() as u64);
            cut().map_err(|error| failed(error.to_string()))?;
        }
        Ok(Self { path, file, newest })
    }

    /// The last head in it.
    pub(super) fn newest(&self) -> Option<&SignedHead> {
        self.newest.as_ref()
    }

    /// Adds what the database has and the file does not.
    pub(super) async fn catch_up(&mut self, client: &Client) -> Result<(), SealerError> {
        const FROM: &str = "-- command_service::sealer::heads_file::catch_up
            SELECT h.number FROM log.tree_heads AS h WHERE h.signed_at <= $1 ORDER BY h.number DESC LIMIT 1";
        let mut number = 0;
        if let Some(newest) = &self.newest {
            if newest.head.log_id != heads::log_id(client).await? {
                return Err(self.failed("it has the heads of another log".to_owned()));
            }
            number = client.query_opt(FROM, &[&newest.head.time]).await?.map_or(0, |row| row.get(0));
        }
        loop {
            let heads = heads::after(client, number, PAGE).await?;
            let Some(last) = heads.last() else { return Ok(()) };
            number = last.number;
            self.append(&heads)?;
        }
    }

    /// Adds heads; they are on the disk when this returns.
    pub(super) fn append(&mut self, heads: &[StoredHead]) -> Result<(), SealerError> {
        let mut lines = Vec::new();
        for head in heads {
            serde_json::to_writer(&mut lines, &head.signed).expect("texts and numbers always serialise");
            lines.push(b'\n');
        }
        let written = self.file.write_all(&lines).and_then(|()| self.file.sync_data());
        written.map_err(|error| self.failed(error.to_string()))?;
        self.newest = heads.last().map(|head| head.signed.clone());
        Ok(())
    }

    fn failed(&self, reason: String) -> SealerError {
        SealerError::File { path: self.path.display().to_string(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#"{"log_id":"00000000-0000-0000-0000-000000000001","epoch":"1.0a0b0c0d","tree_size":7,"root_hash":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","time":"2026-01-01T00:00:00.000000Z","key_id":"0123456789abcdef","signature":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="}"#;

    /// What the file is after it was opened, and the size of its newest head; none if it is refused, and then it is as it was.
    fn opened(text: &str) -> Option<(String, Option<u64>)> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("heads");
        std::fs::write(&path, text).expect("written");
        let opened = HeadsFile::open(path.clone());
        let now = std::fs::read_to_string(&path).expect("read");
        if opened.is_err() {
            assert_eq!(now, text, "what is refused stays as it is");
        }
        opened.ok().map(|file| (now, file.newest().map(|head| head.head.tree_size)))
    }

    #[test]
    fn a_line_that_was_cut_off_goes_and_nothing_else_does() {
        let (line, next) = (format!("{HEAD}\n"), HEAD.replace(":7,", ":9,"));
        assert_eq!(opened(""), Some((String::new(), None)));
        assert_eq!(opened(&line), Some((line.clone(), Some(7))));
        for cut in [1, 20, 200, next.len() - 1] {
            assert_eq!(opened(&format!("{line}{}", &next[..cut])), Some((line.clone(), Some(7))));
            assert_eq!(opened(&next[..cut]), Some((String::new(), None)));
        }
        // Only the line break is missing.
        assert_eq!(opened(&format!("{line}{next}")), Some((format!("{line}{next}\n"), Some(9))));
        for wrong in ["a list of something else", "{\"a\": 1}\n", "notes\nmore notes", &format!("{line}notes\n")] {
            assert_eq!(opened(wrong), None, "{wrong}");
        }
    }
}

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

/// The file, open for adding to it.
#[derive(Debug)]
pub(super) struct HeadsFile {
    path: PathBuf,
    file: File,
    newest: Option<SignedHead>,
}

impl HeadsFile {
    /// Opens the file, making it where it is not there. A last line that was not written to its end is removed.
    pub(super) fn open(path: PathBuf) -> Result<Self, SealerError> {
        let failed = |reason: String| SealerError::File { path: path.display().to_string(), reason };
        let read = || -> std::io::Result<(File, Vec<u8>)> {
            let mut file = File::options().read(true).append(true).create(true).open(&path)?;
            let length = file.metadata()?.len();
            let mut tail = Vec::new();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            file.read_to_end(&mut tail)?;
            let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            file.set_len(length - (tail.len() - whole) as u64)?;
            tail.truncate(whole);
            Ok((file, tail))
        };
        let (file, tail) = read().map_err(|error| failed(error.to_string()))?;
        let newest = tail.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).map(serde_json::from_slice);
        let newest = newest.transpose().map_err(|_| failed("its last line is no head".to_owned()))?;
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

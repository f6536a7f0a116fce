//! What an import's rows are kept in: chunks as they came, and what became of them. Compressed, sealed under a key of the import's
//! own, gone after seven days.

use std::sync::Arc;

use deadpool_postgres::{Object, Pool};
use event_store::Keyring;
use event_store::keyring::{KeyError, PersonKey, WrappedKey};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::form::Form;
use super::intake::Chunk;

/// The most bytes that a sealed part may unpack to: a step's outcomes, with all that they say.
const PART_BYTES_MAX: usize = 256 << 20;
/// Speed before size: the rows are read once.
const ZSTD_LEVEL: i32 = 1;

/// Where bytes and outcomes are kept.
#[derive(Clone)]
pub struct Staging {
    pool: Pool,
    keyring: Arc<Keyring>,
}

/// One import's place in it, with its key.
#[derive(Clone)]
pub struct File {
    /// Whose.
    pub tenant_id: Uuid,
    /// Which import.
    pub import_id: Uuid,
    key: PersonKey,
}

/// What must be known to read the chunks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// What the records are.
    pub form: Form,
    /// The mapping, as TOML.
    pub mapping: String,
}

/// Why bytes cannot be kept or had.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// The database is away or slow.
    #[error("no connection to the database: {0}")]
    Pool(#[from] deadpool_postgres::PoolError),
    /// The database said no.
    #[error("{}", service_kit::postgres::describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// A key cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What was kept is not of its form.
    #[error("part {0} is not of its form")]
    Form(String),
    /// What should be there is gone.
    #[error("part {0} is not there any more")]
    Gone(String),
}

impl Staging {
    /// Keeps things in the database of `pool`, whose role must be the appender.
    pub fn new(pool: Pool, keyring: Arc<Keyring>) -> Self {
        Self { pool, keyring }
    }

    /// A connection, for what is asked beside.
    ///
    /// # Errors
    /// If none can be had in time.
    pub async fn client(&self) -> Result<Object, StagingError> {
        Ok(self.pool.get().await?)
    }

    /// Makes room for a new import, with a new key.
    ///
    /// # Errors
    /// If the database or the keys cannot be had.
    pub async fn create(&self, tenant_id: Uuid, import_id: Uuid) -> Result<File, StagingError> {
        const SQL: &str = "-- command_service::import::staging::create
            INSERT INTO log.import_files (tenant_id, import_id, wrapping_key_id, wrapped_key) VALUES ($1, $2, $3, $4)";
        let (key, wrapped) = self.keyring.new_person_key(tenant_id, import_id)?;
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&tenant_id, &import_id, &wrapped.wrapping_key_id, &wrapped.wrapped];
        self.client().await?.execute(SQL, &parameters).await?;
        Ok(File { tenant_id, import_id, key })
    }

    /// An import's place; none if its bytes are gone.
    ///
    /// # Errors
    /// If the database or the keys cannot be had.
    pub async fn find(&self, tenant_id: Uuid, import_id: Uuid) -> Result<Option<File>, StagingError> {
        const SQL: &str = "-- command_service::import::staging::find
            SELECT wrapping_key_id, wrapped_key FROM log.import_files WHERE tenant_id = $1 AND import_id = $2";
        let Some(row) = self.client().await?.query_opt(SQL, &[&tenant_id, &import_id]).await? else { return Ok(None) };
        let wrapped = WrappedKey { wrapping_key_id: row.get(0), wrapped: row.get(1) };
        let key = self.keyring.unwrap(tenant_id, import_id, &wrapped)?;
        Ok(Some(File { tenant_id, import_id, key }))
    }

    /// Keeps a chunk, numbered from 1.
    ///
    /// # Errors
    /// If the database cannot be had.
    pub async fn put_chunk(&self, file: &File, number: u32, chunk: &Chunk) -> Result<(), StagingError> {
        const SQL: &str = "-- command_service::import::staging::put_chunk
            INSERT INTO log.import_chunks (tenant_id, import_id, chunk, sealed) VALUES ($1, $2, $3, $4)";
        let mut bytes = Vec::with_capacity(chunk.text.len() + 20);
        bytes.extend_from_slice(&chunk.first_row.to_be_bytes());
        bytes.extend_from_slice(&chunk.first_line.to_be_bytes());
        bytes.extend_from_slice(&chunk.rows.to_be_bytes());
        bytes.extend_from_slice(chunk.text.as_bytes());
        let sealed = file.seal(&chunk_part(number), &bytes)?;
        let client = self.client().await?;
        let statement = client.prepare_cached(SQL).await?;
        client.execute(&statement, &[&file.tenant_id, &file.import_id, &signed(number), &sealed]).await?;
        Ok(())
    }

    /// A chunk that was kept.
    ///
    /// # Errors
    /// If the database cannot be had, or the chunk is gone.
    pub async fn chunk(&self, file: &File, number: u32) -> Result<Chunk, StagingError> {
        const SQL: &str = "-- command_service::import::staging::chunk
            SELECT sealed FROM log.import_chunks WHERE tenant_id = $1 AND import_id = $2 AND chunk = $3";
        let part = chunk_part(number);
        let client = self.client().await?;
        let statement = client.prepare_cached(SQL).await?;
        let row = client.query_opt(&statement, &[&file.tenant_id, &file.import_id, &signed(number)]).await?;
        let bytes = file.open(&part, row.ok_or_else(|| StagingError::Gone(part.clone()))?.get(0))?;
        let read = || {
            let (first_row, rest) = bytes.split_first_chunk::<8>()?;
            let (first_line, rest) = rest.split_first_chunk::<8>()?;
            let (rows, text) = rest.split_first_chunk::<4>()?;
            Some(Chunk {
                first_row: u64::from_be_bytes(*first_row),
                first_line: u64::from_be_bytes(*first_line),
                rows: u32::from_be_bytes(*rows),
                text: String::from_utf8(text.to_vec()).ok()?,
            })
        };
        read().ok_or(StagingError::Form(part))
    }

    /// All chunks are kept: what they are.
    ///
    /// # Errors
    /// If the database cannot be had.
    pub async fn put_head(&self, file: &File, head: &Head) -> Result<(), StagingError> {
        const SQL: &str = "-- command_service::import::staging::put_head
            UPDATE log.import_files SET head = $3 WHERE tenant_id = $1 AND import_id = $2";
        let json = serde_json::to_vec(head).map_err(|_| StagingError::Form("head".to_owned()))?;
        let sealed = file.seal("head", &json)?;
        self.client().await?.execute(SQL, &[&file.tenant_id, &file.import_id, &sealed]).await?;
        Ok(())
    }

    /// What the chunks are; none until all are kept.
    ///
    /// # Errors
    /// If the database cannot be had.
    pub async fn head(&self, file: &File) -> Result<Option<Head>, StagingError> {
        const SQL: &str = "-- command_service::import::staging::head
            SELECT head FROM log.import_files WHERE tenant_id = $1 AND import_id = $2";
        let row = self.client().await?.query_opt(SQL, &[&file.tenant_id, &file.import_id]).await?;
        let Some(sealed) = row.and_then(|row| row.get::<_, Option<Vec<u8>>>(0)) else { return Ok(None) };
        let json = file.open("head", &sealed)?;
        serde_json::from_slice(&json).map(Some).map_err(|_| StagingError::Form("head".to_owned()))
    }

    /// Keeps what became of records: of a step, under its last chunk's number, or, below zero, of taking an import back. What was
    /// kept there before is replaced.
    ///
    /// # Errors
    /// If the database cannot be had.
    pub async fn put_outcomes(&self, file: &File, part: i32, text: &[u8]) -> Result<(), StagingError> {
        const SQL: &str = "-- command_service::import::staging::put_outcomes
            INSERT INTO log.import_outcomes (tenant_id, import_id, part, sealed) VALUES ($1, $2, $3, $4)
            ON CONFLICT (tenant_id, import_id, part) DO UPDATE SET sealed = excluded.sealed";
        let sealed = file.seal(&outcomes_part(part), text)?;
        let client = self.client().await?;
        let statement = client.prepare_cached(SQL).await?;
        client.execute(&statement, &[&file.tenant_id, &file.import_id, &part, &sealed]).await?;
        Ok(())
    }

    /// The part of outcomes that follows `after` and ends at `last` or before.
    ///
    /// # Errors
    /// If the database cannot be had.
    pub async fn outcomes_after(
        &self,
        file: &File,
        after: i32,
        last: i32,
    ) -> Result<Option<(i32, Vec<u8>)>, StagingError> {
        const SQL: &str = "-- command_service::import::staging::outcomes_after
            SELECT part, sealed FROM log.import_outcomes
            WHERE tenant_id = $1 AND import_id = $2 AND part > $3 AND part <= $4 ORDER BY part LIMIT 1";
        let client = self.client().await?;
        let row = client.query_opt(SQL, &[&file.tenant_id, &file.import_id, &after, &last]).await?;
        row.map(|row| {
            let part: i32 = row.get(0);
            Ok((part, file.open(&outcomes_part(part), row.get(1))?))
        })
        .transpose()
    }

    /// Removes an import's chunks, which nobody needs any more; outcomes stay.
    ///
    /// # Errors
    /// If the database cannot be had.
    pub async fn remove_chunks(&self, file: &File) -> Result<(), StagingError> {
        const SQL: &str = "-- command_service::import::staging::remove_chunks
            DELETE FROM log.import_chunks WHERE tenant_id = $1 AND import_id = $2";
        self.client().await?.execute(SQL, &[&file.tenant_id, &file.import_id]).await?;
        Ok(())
    }

    /// The imports of a tenant whose bytes or outcomes are still kept, the newest first, at most a hundred.
    ///
    /// # Errors
    /// If the database cannot be had.
    pub async fn list(&self, tenant_id: Uuid) -> Result<Vec<Uuid>, StagingError> {
        const SQL: &str = "-- command_service::import::staging::list
            SELECT import_id FROM log.import_files WHERE tenant_id = $1 ORDER BY created_at DESC, import_id LIMIT 100";
        Ok(self.client().await?.query(SQL, &[&tenant_id]).await?.iter().map(|row| row.get(0)).collect())
    }

    /// Removes an import's bytes and outcomes.
    ///
    /// # Errors
    /// If the database cannot be had.
    pub async fn remove(&self, tenant_id: Uuid, import_id: Uuid) -> Result<(), StagingError> {
        const SQL: &str = "-- command_service::import::staging::remove
            WITH chunks AS (DELETE FROM log.import_chunks WHERE tenant_id = $1 AND import_id = $2),
                 outcomes AS (DELETE FROM log.import_outcomes WHERE tenant_id = $1 AND import_id = $2)
            DELETE FROM log.import_files WHERE tenant_id = $1 AND import_id = $2";
        self.client().await?.execute(SQL, &[&tenant_id, &import_id]).await?;
        Ok(())
    }

    /// Removes bytes and outcomes of the oldest import that began more than seven days ago; whether there was one.
    ///
    /// # Errors
    /// If the database cannot be had.
    pub async fn remove_expired(&self) -> Result<bool, StagingError> {
        const SQL: &str = "-- command_service::import::staging::remove_expired
            SELECT tenant_id, import_id FROM log.import_files
            WHERE created_at < now() - interval '7 days' ORDER BY created_at LIMIT 1";
        let Some(row) = self.client().await?.query_opt(SQL, &[]).await? else { return Ok(false) };
        self.remove(row.get(0), row.get(1)).await?;
        Ok(true)
    }
}

impl File {
    fn seal(&self, part: &str, bytes: &[u8]) -> Result<Vec<u8>, StagingError> {
        if bytes.len() > PART_BYTES_MAX {
            // It could not be read again.
            return Err(StagingError::Form(part.to_owned()));
        }
        let packed = zstd::bulk::compress(bytes, ZSTD_LEVEL).map_err(|_| StagingError::Form(part.to_owned()))?;
        Ok(self.key.seal_part(self.tenant_id, self.import_id, part, &packed)?)
    }

    fn open(&self, part: &str, sealed: &[u8]) -> Result<Vec<u8>, StagingError> {
        let packed = self.key.open_part(self.tenant_id, self.import_id, part, sealed)?;
        let damaged = || StagingError::Form(part.to_owned());
        // The frame says how long it is; it is ours, and sealed, and bounded all the same.
        let bytes = zstd::zstd_safe::get_frame_content_size(&packed).map_err(|_| damaged())?.unwrap_or_default();
        let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= PART_BYTES_MAX).ok_or_else(damaged)?;
        zstd::bulk::decompress(&packed, bytes).map_err(|_| damaged())
    }
}

fn chunk_part(number: u32) -> String {
    format!("chunk {number}")
}

fn outcomes_part(part: i32) -> String {
    format!("outcomes {part}")
}

fn signed(number: u32) -> i32 {
    i32::try_from(number).expect("far fewer chunks than i32::MAX fit into a database")
}

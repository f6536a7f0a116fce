//! What the server needs for the same rows, without anybody who folds them.

use std::pin::pin;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt as _, TryStreamExt as _, try_join};
use migrations::COMPANY_PROSPECT;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, BufWriter};
use tokio_postgres::Client;

const TABLES: [&str; 3] = ["companies", "merged_companies", "company_prospect"];
/// Numbers that no rebuild gives.
const COPIED: i32 = 9_001;
const INSERTED: i32 = 9_002;
/// Bytes that are sent at a time.
const CHUNK: usize = 1 << 20;
/// As a rebuild's own connections have it.
const SETTINGS: &str = "SET maintenance_work_mem = '256MB'; SET synchronous_commit = off";

/// Sending the log to us, who throw it away.
///
/// # Errors
/// If the server refuses.
pub async fn read(client: &Client) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let mut rows =
        pin!(client.copy_out("COPY (SELECT * FROM log.events ORDER BY position) TO STDOUT (FORMAT binary)").await?);
    while rows.try_next().await?.is_some() {}
    Ok(began.elapsed())
}

/// COPY of a generation's rows from a file into empty tables, then all their keys and indexes.
///
/// # Errors
/// If the server refuses.
pub async fn copy_index(client: &mut Client, other: &Client, generation: i32) -> anyhow::Result<Duration> {
    let directory = std::env::temp_dir().join(format!("prospectus-bench-{}", std::process::id()));
    tokio::fs::create_dir_all(&directory).await?;
    for table in TABLES {
        let mut file = BufWriter::new(File::create(directory.join(table)).await?);
        let sql = format!("COPY read_{generation}.{table} TO STDOUT (FORMAT binary)");
        let mut rows = pin!(client.copy_out(&sql).await?);
        while let Some(some) = rows.try_next().await? {
            file.write_all(&some).await?;
        }
        file.flush().await?;
    }
    create(client, COPIED, false).await?;
    client.batch_execute("CHECKPOINT").await?;
    let began = Instant::now();
    for table in TABLES {
        let mut file = BufReader::with_capacity(CHUNK, File::open(directory.join(table)).await?);
        let mut sink =
            pin!(client.copy_in::<_, Bytes>(&format!("COPY read_{COPIED}.{table} FROM STDIN (FORMAT binary)")).await?);
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = file.read(&mut chunk).await?;
            if length == 0 {
                break;
            }
            sink.send(Bytes::copy_from_slice(&chunk[..length])).await?;
        }
        sink.as_mut().finish().await?;
    }
    let (keys, others): (Vec<String>, Vec<String>) = migrations::index_statements(COMPANY_PROSPECT, COPIED)?
        .into_iter()
        .partition(|statement| statement.contains("ADD PRIMARY KEY"));
    for key in keys {
        client.batch_execute(&key).await?;
    }
    // Two at a time, as the rebuild has them on two cores.
    other.batch_execute(SETTINGS).await?;
    let others = Mutex::new(others);
    let next = || others.lock().expect("nobody panics while holding it").pop();
    let make = async |client: &Client| -> anyhow::Result<()> {
        while let Some(statement) = next() {
            client.batch_execute(&statement).await?;
        }
        Ok(())
    };
    try_join!(make(client), make(other))?;
    let took = began.elapsed();
    tokio::fs::remove_dir_all(&directory).await?;
    drop_schema(client, COPIED).await?;
    Ok(took)
}

/// INSERT … SELECT of a generation's rows into tables with every key and index.
///
/// # Errors
/// If the server refuses.
pub async fn indexed_insert(client: &mut Client, generation: i32) -> anyhow::Result<Duration> {
    create(client, INSERTED, true).await?;
    client.batch_execute("CHECKPOINT").await?;
    let began = Instant::now();
    for table in TABLES {
        client
            .batch_execute(&format!("INSERT INTO read_{INSERTED}.{table} SELECT * FROM read_{generation}.{table}"))
            .await?;
    }
    let took = began.elapsed();
    drop_schema(client, INSERTED).await?;
    Ok(took)
}

async fn create(client: &mut Client, generation: i32, indexes: bool) -> anyhow::Result<()> {
    client.batch_execute(SETTINGS).await?;
    let transaction = client.transaction().await?;
    migrations::create_generation(&transaction, COMPANY_PROSPECT, generation, 1).await?;
    if indexes {
        migrations::create_indexes(&transaction, COMPANY_PROSPECT, generation).await?;
    }
    transaction.commit().await?;
    Ok(())
}

async fn drop_schema(client: &mut Client, generation: i32) -> anyhow::Result<()> {
    let transaction = client.transaction().await?;
    migrations::drop_generation(&transaction, COMPANY_PROSPECT, generation).await?;
    transaction.commit().await?;
    Ok(())
}

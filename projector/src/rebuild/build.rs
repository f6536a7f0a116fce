//! One generation from the whole log: its tables, its rows, its indexes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use domain::{Company, Prospect};
use migrations::{COMPANY_PROSPECT, GenerationError};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::load::{Loader, Merged};
use super::request::{Desk, Progress, Request};
use super::swap::is_busy;
use super::{RebuildError, Rebuilds};
use crate::connection::connect;
use crate::elsewhere::{self, Erased, Own};
use crate::parallel::{self, Pieces};
use crate::projection::StepError;
use crate::shard::{self, Amount, Extent, Shard, Source};
use crate::skips::Skips;

/// The server's memory for making one index.
const INDEX_MEMORY: &str =
    "SET statement_timeout = 0; SET synchronous_commit = off; SET maintenance_work_mem = '256MB'";

/// One generation on its way to being loaded.
pub(super) struct Build<'a> {
    pub(super) rebuilds: &'a Rebuilds,
    pub(super) desk: &'a Desk,
    pub(super) request: &'a Request,
    pub(super) progress: &'a Arc<Progress>,
}

/// The statements that make a generation's keys and indexes, in the order in which they can be carried out.
struct Indexes {
    /// The keys of the companies' tables: prospects' rows are made with them.
    companies_keys: Vec<String>,
    /// The other indexes of the companies' tables.
    companies: Vec<String>,
    prospects_key: String,
    /// The other indexes of the prospects' table.
    prospects: Vec<String>,
}

impl Indexes {
    fn of(generation: i32) -> Result<Self, GenerationError> {
        let schema = migrations::schema_name(generation);
        let is_of =
            |statement: &str, table: &str| statement.split_whitespace().any(|word| word == format!("{schema}.{table}"));
        let is_key = |statement: &String| statement.contains("ADD PRIMARY KEY");
        let statements = migrations::index_statements(COMPANY_PROSPECT, generation)?;
        let (prospects, companies): (Vec<_>, Vec<_>) =
            statements.into_iter().partition(|statement| is_of(statement, "company_prospect"));
        let (companies_keys, companies) = companies.into_iter().partition(is_key);
        let (prospects_keys, prospects): (Vec<_>, Vec<_>) = prospects.into_iter().partition(is_key);
        Ok(Self { companies_keys, companies, prospects_key: prospects_keys.concat(), prospects })
    }
}

/// Where the log ends.
struct Head {
    position: i64,
    epoch: String,
}

impl Build<'_> {
    /// Makes a generation and loads it; gives its number.
    pub(super) async fn run(&self) -> Result<i32, RebuildError> {
        self.enter("preparing", 0).await?;
        let mut driven = JoinSet::new();
        let mut client = connect(&self.rebuilds.database, &mut driven).await?;
        client.batch_execute(INDEX_MEMORY).await?;
        self.drop_half(&mut client).await?;
        self.see_that_there_is_room(&client).await?;
        let skips = Arc::new(Skips::read(&client, COMPANY_PROSPECT).await.map_err(StepError::from)?);
        let head = head(&client).await?;
        let extent = Extent::look(&client, &skips, head.position).await?;
        let generation = self.create(&mut client).await?;
        let (database, keyring) = (self.rebuilds.database.clone(), Arc::clone(&self.rebuilds.keyring));
        let source = Source { database, keyring, head: head.position, skips };
        let indexes = Indexes::of(generation)?;

        self.enter("companies", 2 * extent.companies.events).await?;
        let merged = self.companies(&source, generation, extent.companies).await?;
        for key in indexes.companies_keys {
            client.batch_execute(&key).await?;
        }
        self.enter("prospects", 2 * extent.prospects.events).await?;
        let erased = self.prospects(&source, generation, extent.prospects, merged).await?;

        let schema = migrations::schema_name(generation);
        // What the planner knows of an index over an expression is counted with the table.
        let counts: Vec<String> = ["merged_companies", "companies", "company_prospect"]
            .map(|table| format!("ANALYZE {schema}.{table}"))
            .into();
        let pieces = 2 + indexes.companies.len() + indexes.prospects.len() + counts.len();
        self.enter("indexes", i64::try_from(pieces).unwrap_or(i64::MAX)).await?;
        let workers = parallel::workers();
        // Nobody else can work on the prospects' table before it has its last rows and its key.
        let rows_and_key = async {
            Loader::open(&source.database, generation).await?.own_rows().await?;
            self.progress.add(1);
            client.batch_execute(&indexes.prospects_key).await?;
            self.progress.add(1);
            Ok::<(), RebuildError>(())
        };
        tokio::try_join!(rows_and_key, self.share(indexes.companies, workers.saturating_sub(1).max(1)))?;
        self.share(indexes.prospects, workers).await?;
        self.share(counts, workers).await?;
        self.open_up(&mut client, generation, &head).await?;
        // Where nobody keeps the live one up to date, because it is another version's, these have not come to it.
        let own = Own { generation, code_version: self.rebuilds.code_version, live: false };
        elsewhere::clear(&client, own, erased).await?;
        Ok(generation)
    }

    /// Removes what an earlier attempt has left half loaded: its room is wanted. Where somebody who stands still has a lock on it, it is
    /// nobody's from here on, and removed when that one is gone.
    async fn drop_half(&self, client: &mut Client) -> Result<(), RebuildError> {
        const FORGET: &str = "-- projector::rebuild::drop_half
            UPDATE read.rebuilds AS r SET generation = NULL
            WHERE r.rebuild_id = $1 AND r.worker = $2 AND r.finished_at IS NULL
              AND NOT EXISTS (SELECT FROM read.live AS l WHERE l.generation = r.generation OR l.previous_generation = r.generation)";
        let Some(generation) = self.request.generation else { return Ok(()) };
        if client.execute(FORGET, &[&self.request.id, &self.desk.worker()]).await? != 1 {
            return Err(RebuildError::Lost);
        }
        let transaction = client.transaction().await?;
        transaction.batch_execute("SET LOCAL lock_timeout = '1s'").await?;
        match migrations::drop_generation(&transaction, COMPANY_PROSPECT, generation).await {
            Err(GenerationError::Database(error)) if is_busy(&error) => {}
            dropped => {
                dropped?;
                transaction.commit().await?;
            }
        }
        Ok(())
    }

    async fn enter(&self, phase: &str, total: i64) -> Result<(), RebuildError> {
        self.desk.enter(self.request, self.progress, phase, total).await
    }

    /// The live generation's size, and the half again that sorting takes, is what the new one is thought to need.
    async fn see_that_there_is_room(&self, client: &Client) -> Result<(), RebuildError> {
        const SQL: &str = "-- projector::rebuild::see_that_there_is_room
            SELECT (greatest(
                (SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class AS c
                 WHERE c.relkind = 'r' AND c.relnamespace = to_regnamespace('read_' || l.generation)),
                -- A live generation that is far behind says little: then as much as the log.
                CASE WHEN c.position < h.position / 2 THEN pg_table_size('log.events') ELSE 0 END
            ) * 1.5)::bigint
            FROM read.live AS l JOIN read.checkpoints AS c USING (projection, generation), log.head AS h
            WHERE l.projection = $1";
        let needed: i64 = client.query_one(SQL, &[&COMPANY_PROSPECT]).await?.get(0);
        match self.request.room_bytes {
            Some(room) if room < needed => Err(RebuildError::Room { needed, room }),
            _ => Ok(()),
        }
    }

    /// Makes the tables, and names them in the request in the same transaction: nobody takes them for left over.
    async fn create(&self, client: &mut Client) -> Result<i32, RebuildError> {
        const NUMBER: &str = "-- projector::rebuild::create, number
            SELECT nextval('read.generation_numbers')::integer";
        const TAKEN: &str = "-- projector::rebuild::create, taken
            SELECT to_regnamespace('read_' || $1::integer) IS NOT NULL
                OR EXISTS (SELECT FROM read.generations AS g WHERE g.generation = $1)";
        const NAME: &str = "-- projector::rebuild::create, name
            UPDATE read.rebuilds SET generation = $3 WHERE rebuild_id = $1 AND worker = $2 AND finished_at IS NULL";
        let transaction = client.transaction().await?;
        let generation = loop {
            let number: i32 = transaction.query_one(NUMBER, &[]).await?.get(0);
            if !transaction.query_one(TAKEN, &[&number]).await?.get::<_, bool>(0) {
                break number;
            }
        };
        migrations::create_generation(&transaction, COMPANY_PROSPECT, generation, self.rebuilds.code_version).await?;
        if transaction.execute(NAME, &[&self.request.id, &self.desk.worker(), &generation]).await? != 1 {
            return Err(RebuildError::Lost);
        }
        transaction.commit().await?;
        Ok(generation)
    }

    /// Folds and loads all companies, and who stands for whom.
    async fn companies(&self, source: &Source, generation: i32, amount: Amount) -> Result<Merged, RebuildError> {
        let (workers, bytes_max) = self.workers();
        let shards = Arc::new(Pieces::new(Shard::rounds(workers, amount, bytes_max)));
        let merged = Arc::new(Mutex::new(Merged::new()));
        let work = || {
            let (source, progress) = (source.clone(), Arc::clone(self.progress));
            let (shards, merged) = (Arc::clone(&shards), Arc::clone(&merged));
            async move {
                let loader = Loader::open(&source.database, generation).await?;
                while let Some(shard) = shards.next() {
                    let part = shard::fold::<Company>(&source, shard, bytes_max, &progress.done).await?;
                    shards.add(part.left);
                    let of_part = loader.companies(part.records, |events| progress.add(events)).await?;
                    merged.lock().expect(UNPOISONED).extend(of_part);
                }
                Ok::<(), RebuildError>(())
            }
        };
        parallel::all((0..workers).map(|_| work())).await?;
        let merged = std::mem::take(&mut *merged.lock().expect(UNPOISONED));
        Loader::open(&source.database, generation).await?.merged(&merged).await?;
        Ok(merged)
    }

    /// Folds and loads all prospects; gives those who were erased.
    async fn prospects(
        &self,
        source: &Source,
        generation: i32,
        amount: Amount,
        merged: Merged,
    ) -> Result<Vec<Erased>, RebuildError> {
        let (workers, bytes_max) = self.workers();
        let merged = Arc::new(merged);
        let shards = Arc::new(Pieces::new(Shard::rounds(workers, amount, bytes_max)));
        let erased = Arc::new(Mutex::new(Vec::new()));
        let work = || {
            let (source, progress, merged) = (source.clone(), Arc::clone(self.progress), Arc::clone(&merged));
            let (shards, erased) = (Arc::clone(&shards), Arc::clone(&erased));
            async move {
                let loader = Loader::open(&source.database, generation).await?;
                while let Some(shard) = shards.next() {
                    let part = shard::fold::<Prospect>(&source, shard, bytes_max, &progress.done).await?;
                    shards.add(part.left);
                    erased.lock().expect(UNPOISONED).extend(elsewhere::erased(&part.records));
                    loader.prospects(part.records, &merged, |events| progress.add(events)).await?;
                }
                Ok::<(), RebuildError>(())
            }
        };
        parallel::all((0..workers).map(|_| work())).await?;
        Ok(std::mem::take(&mut *erased.lock().expect(UNPOISONED)))
    }

    /// How many parts are folded at the same time, and the bytes of records of each.
    fn workers(&self) -> (usize, usize) {
        let workers = parallel::workers();
        (workers, shard::records_bytes(self.request.memory_bytes) / workers)
    }

    /// Carries out statements, the last one first, so many at a time.
    async fn share(&self, statements: Vec<String>, workers: usize) -> Result<(), RebuildError> {
        let statements = Arc::new(Pieces::new(statements));
        let work = || {
            let (database, statements) = (self.rebuilds.database.clone(), Arc::clone(&statements));
            let progress = Arc::clone(self.progress);
            async move {
                let mut driven = JoinSet::new();
                let client = connect(&database, &mut driven).await?;
                client.batch_execute(INDEX_MEMORY).await?;
                while let Some(statement) = statements.next() {
                    client.batch_execute(&statement).await?;
                    progress.add(1);
                }
                Ok::<(), RebuildError>(())
            }
        };
        parallel::all((0..workers).map(|_| work())).await?;
        Ok(())
    }

    /// Lets others see the tables, and has steps begin after the head that was loaded.
    async fn open_up(&self, client: &mut Client, generation: i32, head: &Head) -> Result<(), RebuildError> {
        const STEP: &str = "-- projector::rebuild::open_up
            INSERT INTO read.checkpoint_steps (projection, generation, step, position, epoch) VALUES ($1, $2, 1, $3, $4)";
        client.batch_execute("SET synchronous_commit = on").await?;
        let transaction = client.transaction().await?;
        migrations::open_access(&transaction, COMPANY_PROSPECT, generation).await?;
        transaction.execute(STEP, &[&COMPANY_PROSPECT, &generation, &head.position, &head.epoch]).await?;
        transaction.commit().await?;
        self.progress.position.store(head.position, Ordering::Relaxed);
        Ok(())
    }
}

async fn head(client: &Client) -> Result<Head, tokio_postgres::Error> {
    const SQL: &str = "-- projector::rebuild::build::head
        SELECT position, coalesce(epoch, '') FROM log.head";
    let row = client.query_one(SQL, &[]).await?;
    Ok(Head { position: row.get(0), epoch: row.get(1) })
}

const UNPOISONED: &str = "nobody panics while holding it";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_is_of_the_table_that_it_is_carried_out_for() {
        let Indexes { companies_keys, companies, prospects_key, prospects } = Indexes::of(7).expect("known");
        assert!(companies_keys.len() == 2 && companies_keys.iter().all(|key| key.contains("ADD PRIMARY KEY")));
        assert!(prospects_key.contains("ALTER TABLE read_7.company_prospect ADD PRIMARY KEY"));
        assert_eq!(prospects_key.matches("PRIMARY KEY").count(), 1);
        assert!(
            companies.iter().all(|index| !index.contains("read_7.company_prospect") && index.contains("CREATE INDEX"))
        );
        assert!(
            prospects
                .iter()
                .all(|index| index.contains("ON read_7.company_prospect") && index.contains("CREATE INDEX"))
        );
        let all = migrations::index_statements(COMPANY_PROSPECT, 7).expect("known").len();
        assert_eq!(companies_keys.len() + companies.len() + 1 + prospects.len(), all);
    }
}

//! The rows of one statement within the snapshot, a page at a time: several such run side by side on one connection.

use std::collections::VecDeque;

use anyhow::Context;
use tokio_postgres::{Portal, Row, Transaction};
use uuid::Uuid;

/// Rows of a page.
const PAGE: i32 = 2_000;

/// A tenant and a record of it.
pub(super) type Place = (Uuid, Uuid);

/// The rows of a statement that gives them in the order of their places.
pub(super) struct Pages<'a> {
    transaction: &'a Transaction<'a>,
    portal: Portal,
    /// Which columns hold tenant and record.
    columns: (usize, usize),
    page: VecDeque<Row>,
    ended: bool,
}

impl<'a> Pages<'a> {
    /// Begins the statement.
    pub(super) async fn open(
        transaction: &'a Transaction<'a>,
        sql: &str,
        columns: (usize, usize),
    ) -> anyhow::Result<Self> {
        // Each table has an index in the order that is asked for; sorting a log for it would fill the server's disk.
        transaction.batch_execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off").await?;
        let statement = transaction.prepare(sql).await?;
        let portal = transaction.bind(&statement, &[]).await?;
        transaction.batch_execute("SET LOCAL enable_seqscan = on; SET LOCAL enable_sort = on").await?;
        Ok(Self { transaction, portal, columns, page: VecDeque::new(), ended: false })
    }

    /// Reads the next page if the last one is used up; says whether it did.
    pub(super) async fn fill(&mut self) -> anyhow::Result<bool> {
        if self.ended || !self.page.is_empty() {
            return Ok(false);
        }
        self.page
            .extend(self.transaction.query_portal(&self.portal, PAGE).await.context("reading on in the snapshot")?);
        self.ended = self.page.is_empty();
        Ok(!self.ended)
    }

    /// The rows that are read and not taken yet.
    pub(super) fn page(&self) -> impl Iterator<Item = &Row> {
        self.page.iter()
    }

    /// The place of the next row, once it is read.
    pub(super) fn place(&self) -> Option<Place> {
        self.page.front().map(|row| (row.get(self.columns.0), row.get(self.columns.1)))
    }

    /// The next row if it is of this place.
    pub(super) fn take(&mut self, place: Place) -> Option<Row> {
        if self.place() == Some(place) { self.page.pop_front() } else { None }
    }
}

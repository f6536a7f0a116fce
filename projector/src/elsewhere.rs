//! Erasures in the other generations that are kept: a previous one, kept for a roll-back, or one that is being built. Their rows are cleared
//! before the live one takes in the event, so that nobody who sees the erasure finds the person in an older table; what else the event
//! changes they take in when they catch up.

use domain::Prospect;
use migrations::COMPANY_PROSPECT;
use time::OffsetDateTime;
use tokio_postgres::{Error, GenericClient};
use uuid::Uuid;

use crate::record::{Place, Records};
use crate::rows::PERSONAL;

/// The generation whose projection has taken in the erasures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own {
    pub(crate) generation: i32,
    pub(crate) code_version: i32,
    /// Whether it is the live one. One that is catching up leaves the live one to its own projection, which locks the same rows; but for
    /// one of another version of the code, which perhaps nobody keeps up to date any more.
    pub(crate) live: bool,
}

/// A person who was erased, and when.
pub(crate) type Erased = (Place, OffsetDateTime);

/// The persons among these records who were erased, with the times.
pub(crate) fn erased(prospects: &Records<Prospect>) -> Vec<Erased> {
    prospects.iter().filter_map(|(place, record)| Some((*place, record.erased_at?))).collect()
}

/// Clears the rows of these persons in every generation but `own`. One that is still being loaded is left out: whoever loads it has read
/// the keys after the log, and takes the erasures that come later when it catches up. Done again it changes nothing.
pub(crate) async fn clear(client: &(impl GenericClient + Sync), own: Own, erased: Vec<Erased>) -> Result<(), Error> {
    const OTHERS: &str = "-- projector::elsewhere::clear, generations
        SELECT g.generation FROM read.generations AS g JOIN read.live AS l USING (projection)
        WHERE g.projection = $1 AND g.generation <> $2 AND g.loaded_at IS NOT NULL
          AND ($3 /* live */ OR g.generation <> l.generation OR g.code_version <> $4 /* code version */)";
    const COLUMNS: &str = "-- projector::elsewhere::clear, columns
        SELECT a.attname::text FROM pg_attribute AS a
        WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped";
    if erased.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = erased.iter().map(|(place, _)| place.0).collect();
    let ids: Vec<Uuid> = erased.iter().map(|(place, _)| place.1).collect();
    let times: Vec<OffsetDateTime> = erased.iter().map(|(_, at)| *at).collect();
    for row in client.query(OTHERS, &[&COMPANY_PROSPECT, &own.generation, &own.live, &own.code_version]).await? {
        let table = format!("{}.company_prospect", migrations::schema_name(row.get(0)));
        // Another version of the code may have made it, with other columns.
        let columns = client.query(COLUMNS, &[&table]).await?;
        let columns: Vec<String> = columns.iter().map(|row| row.get(0)).collect();
        let there = PERSONAL.iter().filter(|(name, _)| columns.iter().any(|column| column == name));
        let set: Vec<String> = there.map(|(name, empty)| format!("{name} = {empty}")).collect();
        if set.is_empty() {
            continue;
        }
        let sql = format!(
            "-- projector::elsewhere::clear
            UPDATE {table} AS p SET {}, prospect_erased_at = n.erased_at
            FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) AS n (tenant_id, row_id, erased_at)
            WHERE p.tenant_id = n.tenant_id AND p.row_id = n.row_id",
            set.join(", ")
        );
        client.execute(&sql, &[&tenants, &ids, &times]).await?;
    }
    Ok(())
}

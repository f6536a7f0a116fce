//! Erasures in the other generations that are kept: a previous one, kept for a roll-back, or one that is being built. Their rows are cleared
//! before the live one takes in the event, so that nobody who sees the erasure finds the person in an older table; what else the event
//! changes they take in when they catch up.

use std::collections::HashMap;

use domain::Prospect;
use migrations::COMPANY_PROSPECT;
use time::OffsetDateTime;
use tokio_postgres::{Client, Error};
use uuid::Uuid;

use crate::record::{Folded, Place};
use crate::rows::PERSONAL;

/// Clears the rows of the persons among these records who were erased, in every generation but `generation`. Done again it changes nothing.
pub(crate) async fn clear(
    client: &Client,
    generation: i32,
    prospects: &HashMap<Place, Folded<Prospect>>,
) -> Result<(), Error> {
    const OTHERS: &str = "-- projector::elsewhere::clear, generations
        SELECT generation FROM read.generations WHERE projection = $1 AND generation <> $2";
    const COLUMNS: &str = "-- projector::elsewhere::clear, columns
        SELECT a.attname::text FROM pg_attribute AS a
        WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped";
    let erased = prospects.iter().filter_map(|(place, record)| Some((*place, record.erased_at?)));
    let erased: Vec<(Place, OffsetDateTime)> = erased.collect();
    if erased.is_empty() {
        return Ok(());
    }
    let tenants: Vec<Uuid> = erased.iter().map(|(place, _)| place.0).collect();
    let ids: Vec<Uuid> = erased.iter().map(|(place, _)| place.1).collect();
    let times: Vec<OffsetDateTime> = erased.iter().map(|(_, at)| *at).collect();
    for row in client.query(OTHERS, &[&COMPANY_PROSPECT, &generation]).await? {
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

//! Where a projector is held in the middle of its work.

use tokio_postgres::Client;

use super::{Opened, eventually};

/// Holds whoever enters a phase, before anything of it is done; or whoever writes a row.
pub struct Gate {
    holder: Client,
    key: i64,
}

impl Gate {
    pub async fn at(opened: &Opened, phase: &str) -> Self {
        let condition = format!(
            "BEFORE UPDATE OF phase ON read.rebuilds FOR EACH ROW WHEN (NEW.phase = '{phase}' AND NEW.outcome IS NULL)"
        );
        Self::on(opened, 1, "read.rebuilds", &condition).await
    }

    pub async fn at_rows_of(opened: &Opened, table: &str) -> Self {
        Self::on(opened, 2, table, &format!("BEFORE INSERT ON {table} FOR EACH ROW")).await
    }

    async fn on(opened: &Opened, key: i64, table: &str, condition: &str) -> Self {
        let holder = opened.database.superuser().await;
        holder.query_one("SELECT pg_advisory_lock($1)", &[&key]).await.expect("the gate");
        opened
            .sql(&format!(
                "CREATE OR REPLACE FUNCTION public.gate_{key}() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN PERFORM pg_advisory_xact_lock_shared({key}); RETURN NEW; END $$;
                 DROP TRIGGER IF EXISTS gate ON {table};
                 CREATE TRIGGER gate {condition} EXECUTE FUNCTION public.gate_{key}()"
            ))
            .await;
        Self { holder, key }
    }

    pub async fn reached(&self, opened: &Opened) {
        let waiting = format!(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 0 AND objid = {} AND NOT granted
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            self.key
        );
        eventually("the gate", async || (opened.number(&waiting).await > 0).then_some(())).await;
    }

    pub async fn open(self) {
        self.holder.query_one("SELECT pg_advisory_unlock($1)", &[&self.key]).await.expect("the gate");
    }
}

-- What operators see (decision 0013): why a projection stands still, how far each generation is, what the server does, and when the last
-- backup was made.
SET ROLE prospectus_owner;

CREATE TABLE read.projection_errors (
    projection text NOT NULL,
    generation integer NOT NULL,
    position bigint CHECK (position >= 1),
    event_position bigint CHECK (event_position >= 1),
    reason text NOT NULL CHECK (reason ~ '^[a-z_]{1,40}$'),
    error text NOT NULL CHECK (length(error) <= 2000),
    happened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (projection, generation),
    FOREIGN KEY (projection, generation) REFERENCES read.generations ON DELETE CASCADE
);
COMMENT ON TABLE read.projection_errors IS 'The last error of each generation, written in a transaction of its own. One with a position stands until the checkpoint has passed it';
COMMENT ON COLUMN read.projection_errors.projection IS 'Which projection';
COMMENT ON COLUMN read.projection_errors.generation IS 'Which generation of it';
COMMENT ON COLUMN read.projection_errors.position IS 'The generation stands right before this event; null where the error is not an event''s';
COMMENT ON COLUMN read.projection_errors.event_position IS 'The event that cannot be applied: this one, or an earlier one of the same record';
COMMENT ON COLUMN read.projection_errors.reason IS 'A stable name, which tenants may see';
COMMENT ON COLUMN read.projection_errors.error IS 'For operators: may quote what the event holds in the open, never a sealed value';
COMMENT ON COLUMN read.projection_errors.happened_at IS 'When it was met first';
GRANT SELECT, INSERT, UPDATE ON read.projection_errors TO prospectus_projector;
GRANT SELECT ON read.projection_errors TO prospectus_verifier, prospectus_operator;

-- Tells positions, times and names, and nothing of any tenant's records; see read.progress.
CREATE FUNCTION read.projection_states()
RETURNS TABLE (
    projection text, generation integer, live_generation integer, complete_position bigint, applied_position bigint, epoch text,
    waits_since timestamptz, stepped_at timestamptz, queued bigint, events_per_second double precision,
    error_position bigint, error_reason text, error_at timestamptz, error_stands boolean, rebuilding_at timestamptz
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT c.projection, c.generation, l.generation, least(c.position, q.position - 1), c.position, c.epoch,
           e.recorded_at, c.updated_at, q.queued, coalesce(r.events_per_second, 0),
           x.event_position, x.reason, x.happened_at, coalesce(x.position > c.position, false), coalesce(b.beat_at, b.requested_at)
    FROM read.checkpoints AS c
    LEFT JOIN read.live AS l ON l.projection = c.projection
    CROSS JOIN LATERAL (
        SELECT min(f.position) AS position, count(f.position) AS queued FROM read.fanout AS f
        WHERE f.projection = c.projection AND f.generation = c.generation
    ) AS q
    CROSS JOIN LATERAL (
        SELECT (max(s.position) - min(s.position))
               / nullif(extract(epoch FROM max(s.updated_at) - min(s.updated_at))::double precision, 0) AS events_per_second
        FROM read.checkpoint_steps AS s
        WHERE s.projection = c.projection AND s.generation = c.generation AND s.updated_at > clock_timestamp() - interval '1 minute'
    ) AS r
    LEFT JOIN read.projection_errors AS x ON x.projection = c.projection AND x.generation = c.generation
    LEFT JOIN read.rebuilds AS b ON b.projection = c.projection AND b.generation = c.generation AND b.finished_at IS NULL
    LEFT JOIN log.events AS e ON e.position = least(c.position, q.position - 1) + 1
$$;
REVOKE ALL ON FUNCTION read.projection_states FROM PUBLIC;
GRANT EXECUTE ON FUNCTION read.projection_states TO prospectus_query, prospectus_projector, prospectus_operator;
COMMENT ON FUNCTION read.projection_states IS 'For each generation: how far it is (see read.progress), since when the first event that it does not show everywhere waits, when its last step was taken, how many companies'' changes are queued, events a second between the first and the last step of the last minute, its last error, which stands while the checkpoint is before it, and when whoever builds it or brings it back last said so';

CREATE SCHEMA ops;
COMMENT ON SCHEMA ops IS 'What operators'' tools note about the database as a whole';
GRANT USAGE ON SCHEMA ops TO prospectus_projector, prospectus_operator;

CREATE TABLE ops.backups (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz CHECK (finished_at >= started_at),
    kind text NOT NULL CHECK (kind ~ '^[a-z_]{1,40}$'),
    label text NOT NULL CHECK (length(label) BETWEEN 1 AND 255),
    position bigint CHECK (position >= 0),
    ok boolean,
    CHECK ((finished_at IS NULL) = (ok IS NULL))
);
CREATE INDEX backups_finished ON ops.backups (finished_at) WHERE ok;
COMMENT ON TABLE ops.backups IS 'A row for each backup that has ended, well or not, written by `prospectus backup`; what prospectus_backup_last_success_timestamp_seconds reads';
COMMENT ON COLUMN ops.backups.id IS '1, 2, 3, ...';
COMMENT ON COLUMN ops.backups.started_at IS 'When it began';
COMMENT ON COLUMN ops.backups.finished_at IS 'When it ended; null while it runs, and for ever where it was cut off';
COMMENT ON COLUMN ops.backups.kind IS 'full, incremental, ...';
COMMENT ON COLUMN ops.backups.label IS 'The backup tool''s name for it';
COMMENT ON COLUMN ops.backups.position IS 'The log''s head when it began: at least so much is in it';
COMMENT ON COLUMN ops.backups.ok IS 'Whether it can be restored from, as far as the tool knows';
GRANT SELECT ON ops.backups TO prospectus_projector, prospectus_operator;

-- Who streams from this server, who holds its write-ahead log, and for how long a transaction has been open is not for every role to see; the
-- function's owner may (0007_proofs.sql), and tells figures and names of servers, no statements.
CREATE FUNCTION ops.server_figures()
RETURNS TABLE (figure text, name text, value double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    -- A table that is dropped meanwhile has no size.
    SELECT f.figure, f.name, f.value FROM (
        SELECT 'standby_replay_lag_bytes', r.application_name,
               coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), r.replay_lsn), 0)::double precision
        FROM pg_stat_replication AS r
        UNION ALL
        SELECT 'standby_replay_lag_seconds', r.application_name, coalesce(extract(epoch FROM r.replay_lag), 0)::double precision
        FROM pg_stat_replication AS r
        UNION ALL
        SELECT 'standbys', '', count(*)::double precision FROM pg_stat_replication AS r WHERE r.state = 'streaming'
        UNION ALL
        SELECT 'replication_slot_held_bytes', s.slot_name::text,
               coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn), 0)::double precision
        FROM pg_replication_slots AS s
        UNION ALL
        SELECT 'replication_slot_active', s.slot_name::text, s.active::integer::double precision FROM pg_replication_slots AS s
        UNION ALL
        SELECT 'replication_slot_lost', s.slot_name::text, (coalesce(s.wal_status, '') = 'lost')::integer::double precision
        FROM pg_replication_slots AS s
        UNION ALL
        SELECT 'oldest_transaction_seconds', '',
               coalesce(max(extract(epoch FROM clock_timestamp() - a.xact_start)), 0)::double precision
        FROM pg_stat_activity AS a WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
        UNION ALL
        SELECT 'connections', '', count(*)::double precision FROM pg_stat_activity AS a WHERE a.backend_type = 'client backend'
        UNION ALL
        SELECT 'connections_max', '', current_setting('max_connections')::double precision
        UNION ALL
        SELECT 'table_bytes', format('%I.%I', n.nspname, c.relname), pg_table_size(c.oid)::double precision
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'm') AND (n.nspname IN ('log', 'access', 'read', 'ops') OR n.nspname LIKE 'read\_%')
        UNION ALL
        SELECT 'index_bytes', format('%I.%I', n.nspname, c.relname), pg_indexes_size(c.oid)::double precision
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'm') AND (n.nspname IN ('log', 'access', 'read', 'ops') OR n.nspname LIKE 'read\_%')
        UNION ALL
        SELECT 'rebuild_under_way', l.projection, (EXISTS (
            SELECT FROM read.rebuilds AS r WHERE r.projection = l.projection AND r.finished_at IS NULL))::integer::double precision
        FROM read.live AS l
        UNION ALL
        -- Of the last one that is over, a roll-back included.
        SELECT 'rebuild_failed', l.projection, coalesce((
            SELECT (r.outcome = 'failed')::integer FROM read.rebuilds AS r
            WHERE r.projection = l.projection AND r.finished_at IS NOT NULL ORDER BY r.rebuild_id DESC LIMIT 1), 0)::double precision
        FROM read.live AS l
        UNION ALL
        -- 0 where there never was one: then its age is that of the world, and the alarm goes off.
        SELECT 'backup_last_success_timestamp_seconds', '', coalesce(max(extract(epoch FROM b.finished_at)), 0)::double precision
        FROM ops.backups AS b WHERE b.ok
    ) AS f (figure, name, value) WHERE f.value IS NOT NULL
$$;
REVOKE ALL ON FUNCTION ops.server_figures FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ops.server_figures TO prospectus_projector, prospectus_operator;
COMMENT ON FUNCTION ops.server_figures IS 'Figures of the database server by name, each of one thing (a standby, a slot, a table) or of the whole; prospectus_<figure> in the projector''s scrape';

RESET ROLE;

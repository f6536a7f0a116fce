-- Who looked at which records, where a tenant asks for it: a log of its own, append-only as the other one is.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'prospectus_reads') THEN
        CREATE ROLE prospectus_reads LOGIN;
        COMMENT ON ROLE prospectus_reads IS 'Notes which records the query service showed to whom; can do nothing else';
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- another database of this server is being migrated at the same moment and was first
END
$$;

SET ROLE prospectus_owner;

ALTER TABLE access.tenants ADD COLUMN audit_reads boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN access.tenants.audit_reads IS 'Whether reading its records is noted in log.reads; then nothing is shown that could not be noted';

-- Beside access.find_api_key, which a running release goes on asking.
CREATE FUNCTION access.find_principal(wanted_prefix text)
RETURNS TABLE (tenant_id uuid, secret_sha256 bytea, role text, revoked boolean, audits_reads boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT k.tenant_id, k.secret_sha256, k.role, k.revoked_at IS NOT NULL, t.audit_reads
    FROM access.api_keys AS k JOIN access.tenants AS t USING (tenant_id) WHERE k.prefix = wanted_prefix
$$;
REVOKE ALL ON FUNCTION access.find_principal FROM PUBLIC;
GRANT EXECUTE ON FUNCTION access.find_principal TO prospectus_appender, prospectus_query;
COMMENT ON FUNCTION access.find_principal IS 'What is needed to check one API key, and what its tenant wants of those who use it';

CREATE TABLE log.reads (
    position bigint PRIMARY KEY CHECK (position >= 1),
    tenant_id uuid NOT NULL,
    read_at timestamptz NOT NULL,
    api_key text NOT NULL,
    actor_role text NOT NULL,
    endpoint text NOT NULL,
    request_id uuid NOT NULL,
    client_address text NOT NULL,
    record_ids uuid[] NOT NULL CHECK (cardinality(record_ids) BETWEEN 1 AND 10000)
);
CREATE INDEX reads_tenant ON log.reads (tenant_id, position);
CREATE INDEX reads_records ON log.reads USING gin (record_ids);
COMMENT ON TABLE log.reads IS 'Append-only: which records were shown to whom, of tenants that ask for it. Nothing of ours removes rows';
COMMENT ON COLUMN log.reads.position IS '1, 2, 3, ... in commit order, of this table only';
COMMENT ON COLUMN log.reads.tenant_id IS 'Whose records';
COMMENT ON COLUMN log.reads.read_at IS 'When it was noted, right before the answer was given';
COMMENT ON COLUMN log.reads.api_key IS 'Prefix of the API key that asked';
COMMENT ON COLUMN log.reads.actor_role IS 'The key''s role then';
COMMENT ON COLUMN log.reads.endpoint IS 'The path that was asked, without ids and parameters: they may be personal';
COMMENT ON COLUMN log.reads.request_id IS 'As in X-Request-Id';
COMMENT ON COLUMN log.reads.client_address IS 'Address of the client''s end of the connection';
COMMENT ON COLUMN log.reads.record_ids IS 'The records that were shown';

ALTER TABLE log.reads ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON log.reads TO prospectus_owner USING (true) WITH CHECK (true);
CREATE POLICY request ON log.reads FOR SELECT TO prospectus_query USING (tenant_id = access.request_tenant());
GRANT SELECT ON log.reads TO prospectus_query;

-- Row-level security keeps array operators from using indexes, so this adds the tenant itself (decision 15).
CREATE FUNCTION log.reads_of(record uuid, after bigint, most bigint) RETURNS SETOF log.reads
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH found AS MATERIALIZED (
        SELECT r.* FROM log.reads AS r
        WHERE r.record_ids @> ARRAY[record] AND r.tenant_id = access.request_tenant() AND r.position > after
    )
    SELECT f.* FROM found AS f ORDER BY f.position LIMIT most
$$;
REVOKE ALL ON FUNCTION log.reads_of FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.reads_of TO prospectus_query;
COMMENT ON FUNCTION log.reads_of IS 'The notes of the request''s tenant that name a record, after a position, in order';

-- The one way in. The lock makes positions dense and in commit order, so that whoever reads on from a position misses nothing.
CREATE FUNCTION log.note_reads(
    tenants uuid[], api_keys text[], roles text[], endpoints text[], requests uuid[], addresses text[], records text[]
) RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(5787213827046133843);
    INSERT INTO log.reads (position, tenant_id, read_at, api_key, actor_role, endpoint, request_id, client_address, record_ids)
    SELECT coalesce((SELECT r.position FROM log.reads AS r ORDER BY r.position DESC LIMIT 1), 0) + n.ordinality,
           n.tenant_id, clock_timestamp(), n.api_key, n.actor_role, n.endpoint, n.request_id, n.client_address, n.record_ids::uuid[]
    FROM unnest(tenants, api_keys, roles, endpoints, requests, addresses, records) WITH ORDINALITY
        AS n (tenant_id, api_key, actor_role, endpoint, request_id, client_address, record_ids, ordinality);
END
$$;
REVOKE ALL ON FUNCTION log.note_reads FROM PUBLIC;
GRANT USAGE ON SCHEMA log TO prospectus_reads;
GRANT EXECUTE ON FUNCTION log.note_reads TO prospectus_reads;
COMMENT ON FUNCTION log.note_reads IS 'Notes some reads, each array with an element for each; records are arrays of ids as text';

RESET ROLE;

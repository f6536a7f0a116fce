-- The event log and what is written in the same transaction as an event (decisions 1 to 9, 16 and 17).
SET ROLE prospectus_owner;

CREATE SCHEMA log;
COMMENT ON SCHEMA log IS 'The event log: the only truth';
GRANT USAGE ON SCHEMA log TO prospectus_appender, prospectus_relay, prospectus_projector, prospectus_query,
    prospectus_sealer, prospectus_verifier, prospectus_operator, prospectus_people;

CREATE TABLE log.identity (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    log_id uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO log.identity DEFAULT VALUES;
COMMENT ON TABLE log.identity IS 'One row: which log this is, for its whole life and on every replica and restore';
COMMENT ON COLUMN log.identity.one_row IS 'Keeps it to one row';
COMMENT ON COLUMN log.identity.log_id IS 'Random id of the log';

CREATE TABLE log.epochs (
    number bigint PRIMARY KEY CHECK (number >= 1),
    epoch_id uuid NOT NULL UNIQUE,
    name text NOT NULL UNIQUE GENERATED ALWAYS AS (number::text || '.' || left(epoch_id::text, 8)) STORED,
    first_position bigint NOT NULL CHECK (first_position >= 1),
    system_identifier bigint NOT NULL,
    timeline bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE log.epochs IS 'Each life of the log (decision 9): a row by the first append on another server or timeline';
COMMENT ON COLUMN log.epochs.number IS '1, 2, 3, ...; a consumer refuses one lower than the highest it has seen';
COMMENT ON COLUMN log.epochs.epoch_id IS 'Random, because two servers promoted from one primary are on the same timeline number';
COMMENT ON COLUMN log.epochs.name IS 'What answers and consumers carry: the number, a dot, the first eight digits of the id';
COMMENT ON COLUMN log.epochs.first_position IS 'Positions from here on belong to this life';
COMMENT ON COLUMN log.epochs.system_identifier IS 'pg_control_system() of the server';
COMMENT ON COLUMN log.epochs.timeline IS 'Timeline that the server writes';
COMMENT ON COLUMN log.epochs.created_at IS 'When the epoch began';

CREATE TABLE log.events (
    position bigint PRIMARY KEY CHECK (position >= 1),
    tenant_id uuid NOT NULL,
    aggregate_type text NOT NULL,
    aggregate_id uuid NOT NULL,
    sequence bigint NOT NULL CHECK (sequence >= 1),
    event_id uuid NOT NULL,
    event_type text NOT NULL,
    event_version smallint NOT NULL CHECK (event_version >= 1),
    payload json NOT NULL,
    metadata json NOT NULL,
    recorded_at timestamptz NOT NULL
);
-- Optimistic concurrency: two appends that saw the same version cannot both stand.
CREATE UNIQUE INDEX events_sequence ON log.events (tenant_id, aggregate_id, sequence);
-- A tenant's own feed, from any position.
CREATE INDEX events_tenant ON log.events (tenant_id, position);
COMMENT ON TABLE log.events IS 'Append-only; also the outbox. Positions are dense and in commit order (decision 2)';
COMMENT ON COLUMN log.events.position IS '1, 2, 3, ... without a hole, in commit order';
COMMENT ON COLUMN log.events.tenant_id IS 'Whose record it is';
COMMENT ON COLUMN log.events.aggregate_type IS 'company, prospect, ...';
COMMENT ON COLUMN log.events.aggregate_id IS 'Which record';
COMMENT ON COLUMN log.events.sequence IS 'The record''s version after this event; the first is 1';
COMMENT ON COLUMN log.events.event_id IS 'UUID v7, made before the append: an append tried again is recognised by it';
COMMENT ON COLUMN log.events.event_type IS 'Past tense: CompanyRegistered, ...';
COMMENT ON COLUMN log.events.event_version IS 'Version of the payload''s form; old ones are read for ever';
COMMENT ON COLUMN log.events.payload IS 'json, not jsonb: the stored bytes are the hashed bytes. Personal members are sealed';
COMMENT ON COLUMN log.events.metadata IS 'A flat object of strings: actor, correlation and causation ids, request, source, client address';
COMMENT ON COLUMN log.events.recorded_at IS 'Never runs backwards along positions (decision 7)';

CREATE TABLE log.claims (
    tenant_id uuid NOT NULL,
    kind text NOT NULL,
    key text NOT NULL,
    aggregate_id uuid NOT NULL,
    released boolean NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX claims_held ON log.claims (tenant_id, kind, key) WHERE NOT released;
CREATE INDEX claims_released ON log.claims (tenant_id, kind, key) WHERE released;
COMMENT ON TABLE log.claims IS 'Rules across records (decision 5): what one record holds and no other may';
COMMENT ON COLUMN log.claims.tenant_id IS 'Within which tenant';
COMMENT ON COLUMN log.claims.kind IS 'domain, company_ref, prospect_ref, live, ...';
COMMENT ON COLUMN log.claims.key IS 'The value, or its HMAC where the value is personal';
COMMENT ON COLUMN log.claims.aggregate_id IS 'Who holds it, or held it';
COMMENT ON COLUMN log.claims.released IS 'Given up; the row stays to tell that a deleted record had it';

CREATE TABLE log.matches (
    tenant_id uuid NOT NULL,
    kind text NOT NULL,
    key text NOT NULL,
    aggregate_id uuid NOT NULL,
    PRIMARY KEY (tenant_id, kind, key, aggregate_id)
);
COMMENT ON TABLE log.matches IS 'What is not unique but must be found in the write path (decision 5)';
COMMENT ON COLUMN log.matches.tenant_id IS 'Within which tenant';
COMMENT ON COLUMN log.matches.kind IS 'email, name_country, ...';
COMMENT ON COLUMN log.matches.key IS 'The value, or its HMAC where the value is personal';
COMMENT ON COLUMN log.matches.aggregate_id IS 'A record that has the value';

CREATE TABLE log.receipts (
    tenant_id uuid NOT NULL,
    idempotency_key text NOT NULL CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    request_hmac bytea NOT NULL CHECK (octet_length(request_hmac) = 32),
    answer json NOT NULL,
    position bigint NOT NULL CHECK (position >= 0),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, idempotency_key)
);
CREATE INDEX receipts_created_at ON log.receipts (created_at);
COMMENT ON TABLE log.receipts IS 'First answers to idempotency keys (decision 8), for 7 days';
COMMENT ON COLUMN log.receipts.tenant_id IS 'Whose key it is';
COMMENT ON COLUMN log.receipts.idempotency_key IS 'As the client sent it';
COMMENT ON COLUMN log.receipts.request_hmac IS 'HMAC-SHA-256 of the request under the tenant''s key: another body is refused';
COMMENT ON COLUMN log.receipts.answer IS 'What was answered, but for the position; never personal data';
COMMENT ON COLUMN log.receipts.position IS 'The position that was answered';
COMMENT ON COLUMN log.receipts.created_at IS 'When; removed 7 days later';

CREATE TABLE log.person_keys (
    tenant_id uuid NOT NULL,
    person_id uuid NOT NULL,
    wrapping_key_id text,
    wrapped_key bytea,
    erased_position bigint,
    PRIMARY KEY (tenant_id, person_id),
    CHECK ((wrapped_key IS NULL) = (erased_position IS NOT NULL)),
    CHECK ((wrapped_key IS NULL) = (wrapping_key_id IS NULL))
);
COMMENT ON TABLE log.person_keys IS 'One key per person (decision 17); an erased person''s row stays, emptied';
COMMENT ON COLUMN log.person_keys.tenant_id IS 'Whose person';
COMMENT ON COLUMN log.person_keys.person_id IS 'The aggregate whose personal members the key seals';
COMMENT ON COLUMN log.person_keys.wrapping_key_id IS 'Which key-encryption key wraps it';
COMMENT ON COLUMN log.person_keys.wrapped_key IS 'Nonce, then the AES-256 key sealed with AES-256-GCM under the key-encryption key';
COMMENT ON COLUMN log.person_keys.erased_position IS 'The event that erased the person';

CREATE TABLE log.wrapping_keys (
    wrapping_key_id text PRIMARY KEY,
    proof bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE log.wrapping_keys IS 'Which key-encryption keys this log has seen, so that a service with a wrong one does not start';
COMMENT ON COLUMN log.wrapping_keys.wrapping_key_id IS 'Name from the key file';
COMMENT ON COLUMN log.wrapping_keys.proof IS 'A known text sealed under the key';
COMMENT ON COLUMN log.wrapping_keys.created_at IS 'When it was first used';

-- Row-level security, forced, on everything that has a tenant.
ALTER TABLE log.events ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE log.claims ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE log.matches ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE log.receipts ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE log.person_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- Policies of the roles that work across tenants.
CREATE POLICY append ON log.events FOR INSERT TO prospectus_appender WITH CHECK (true);
CREATE POLICY read_all ON log.events FOR SELECT TO prospectus_owner, prospectus_appender, prospectus_relay,
    prospectus_projector, prospectus_sealer, prospectus_verifier USING (true);
CREATE POLICY write ON log.claims TO prospectus_appender USING (true) WITH CHECK (true);
CREATE POLICY write ON log.matches TO prospectus_appender USING (true) WITH CHECK (true);
CREATE POLICY write ON log.receipts TO prospectus_appender USING (true) WITH CHECK (true);
CREATE POLICY write ON log.person_keys TO prospectus_appender USING (true) WITH CHECK (true);
CREATE POLICY read_all ON log.claims FOR SELECT TO prospectus_verifier USING (true);
CREATE POLICY read_all ON log.matches FOR SELECT TO prospectus_verifier USING (true);
CREATE POLICY read_all ON log.person_keys FOR SELECT TO prospectus_projector, prospectus_verifier USING (true);

-- Policies of those who see one tenant.
CREATE POLICY request ON log.events FOR SELECT TO prospectus_query USING (tenant_id = access.request_tenant());
CREATE POLICY request ON log.person_keys FOR SELECT TO prospectus_query USING (tenant_id = access.request_tenant());
CREATE POLICY person ON log.events FOR SELECT TO prospectus_people USING (tenant_id = (SELECT access.person_tenant()));

-- Grants: append-only is the server's word, not ours (decision 16).
GRANT SELECT, INSERT ON log.events TO prospectus_appender;
GRANT SELECT ON log.events TO prospectus_relay, prospectus_projector, prospectus_query, prospectus_sealer, prospectus_verifier, prospectus_people;
GRANT SELECT, INSERT ON log.epochs TO prospectus_appender, prospectus_operator;
GRANT SELECT ON log.epochs TO prospectus_relay, prospectus_projector, prospectus_query, prospectus_sealer, prospectus_verifier;
GRANT SELECT ON log.identity TO prospectus_appender, prospectus_relay, prospectus_projector, prospectus_query, prospectus_sealer, prospectus_verifier;
GRANT SELECT, INSERT ON log.claims TO prospectus_appender;
GRANT UPDATE (released) ON log.claims TO prospectus_appender;
GRANT SELECT ON log.claims, log.matches TO prospectus_verifier;
GRANT SELECT, INSERT, DELETE ON log.matches TO prospectus_appender;
GRANT SELECT, INSERT, DELETE ON log.receipts TO prospectus_appender;
GRANT SELECT, INSERT ON log.person_keys TO prospectus_appender;
GRANT SELECT ON log.person_keys TO prospectus_projector, prospectus_query, prospectus_verifier;
GRANT SELECT, INSERT ON log.wrapping_keys TO prospectus_appender;
GRANT SELECT ON log.wrapping_keys TO prospectus_projector, prospectus_query, prospectus_verifier;

-- The one way in (decisions 2 and 3): a batch of commands is one call, in one round trip. It is VOLATILE, so each of its statements
-- has a snapshot of its own: the head is read by one that began after the lock was taken.
CREATE FUNCTION log.take_lock() RETURNS void LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
    RETURN pg_advisory_xact_lock(5787213827046133840);
COMMENT ON FUNCTION log.take_lock() IS
    'Takes the log''s lock until the transaction ends. Nothing is updated by it, so nothing rots under a foreign snapshot';
REVOKE ALL ON FUNCTION log.take_lock() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.take_lock() TO prospectus_appender, prospectus_operator;

CREATE FUNCTION log.deleted_holders(
    acts text[], tenants uuid[], kinds text[], keys text[], aggregates uuid[], OUT heir uuid, OUT holder uuid
) RETURNS SETOF record LANGUAGE sql STABLE AS $$
    SELECT DISTINCT ON (n.aggregate_id) n.aggregate_id, c.aggregate_id
    FROM unnest(acts, tenants, kinds, keys, aggregates) AS n (act, tenant_id, kind, key, aggregate_id)
    JOIN log.claims AS c ON c.tenant_id = n.tenant_id AND c.kind = n.kind AND c.key = n.key AND c.released
    WHERE n.act = 'inherit' AND c.aggregate_id <> n.aggregate_id AND NOT EXISTS (
        SELECT FROM log.claims AS live
        WHERE live.tenant_id = n.tenant_id AND live.kind = 'live' AND live.key = c.aggregate_id::text AND NOT live.released
    )
    ORDER BY n.aggregate_id, c.aggregate_id DESC
$$;
COMMENT ON FUNCTION log.deleted_holders IS
    'For each new record that inherits values: the newest record that held one of them before and is deleted, that is, holds no claim `live`';
REVOKE ALL ON FUNCTION log.deleted_holders FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.deleted_holders TO prospectus_appender;

CREATE FUNCTION log.append(
    expected_epoch text,
    tenants uuid[], aggregate_types text[], aggregates uuid[], sequences bigint[], event_ids uuid[], event_types text[],
    event_versions smallint[], payloads json[], metadatas json[],
    key_tenants uuid[], key_persons uuid[], key_wrapping_ids text[], key_wrapped bytea[],
    value_acts text[], value_tenants uuid[], value_kinds text[], value_keys text[], value_aggregates uuid[],
    receipt_tenants uuid[], receipt_keys text[], receipt_hmacs bytea[], receipt_answers json[], receipt_positions bigint[],
    receipt_ends bigint[],
    OUT base bigint, OUT heirs uuid[], OUT deleted_holders uuid[]
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    recorded timestamptz;
BEGIN
    PERFORM log.take_lock();
    SELECT e.position, e.recorded_at INTO base, recorded FROM log.events AS e ORDER BY e.position DESC LIMIT 1;
    base := coalesce(base, 0);
    recorded := greatest(recorded, clock_timestamp());
    IF (SELECT name FROM log.epochs ORDER BY number DESC LIMIT 1) IS DISTINCT FROM expected_epoch THEN
        RAISE EXCEPTION 'the log is in another epoch' USING ERRCODE = 'PR001';
    END IF;

    INSERT INTO log.events (position, tenant_id, aggregate_type, aggregate_id, sequence, event_id, event_type, event_version,
                            payload, metadata, recorded_at)
    SELECT base + n.ordinality, n.tenant_id, n.aggregate_type, n.aggregate_id, n.sequence, n.event_id, n.event_type,
           n.event_version, n.payload, n.metadata, recorded
    FROM unnest(tenants, aggregate_types, aggregates, sequences, event_ids, event_types, event_versions, payloads, metadatas)
        WITH ORDINALITY
        AS n (tenant_id, aggregate_type, aggregate_id, sequence, event_id, event_type, event_version, payload, metadata, ordinality);

    IF cardinality(key_tenants) > 0 THEN
        INSERT INTO log.person_keys (tenant_id, person_id, wrapping_key_id, wrapped_key)
        SELECT * FROM unnest(key_tenants, key_persons, key_wrapping_ids, key_wrapped);
    END IF;

    IF 'require' = ANY (value_acts) AND EXISTS (
        SELECT FROM unnest(value_acts, value_tenants, value_kinds, value_keys) AS n (act, tenant_id, kind, key)
        WHERE n.act = 'require' AND NOT EXISTS (
            SELECT FROM log.claims AS c
            WHERE c.tenant_id = n.tenant_id AND c.kind = n.kind AND c.key = n.key AND NOT c.released
        )
    ) THEN
        RAISE EXCEPTION 'a required claim is not held' USING ERRCODE = 'PR002';
    END IF;
    -- Released before taken: a record may hand a claim from one of its places to another in one command.
    IF 'release' = ANY (value_acts) THEN
        UPDATE log.claims AS c SET released = true
        FROM unnest(value_acts, value_tenants, value_kinds, value_keys, value_aggregates) AS n (act, tenant_id, kind, key, aggregate_id)
        WHERE n.act = 'release' AND c.tenant_id = n.tenant_id AND c.kind = n.kind AND c.key = n.key
          AND c.aggregate_id = n.aggregate_id AND NOT c.released;
    END IF;
    IF 'inherit' = ANY (value_acts) THEN
        SELECT array_agg(h.heir), array_agg(h.holder) INTO heirs, deleted_holders
        FROM log.deleted_holders(value_acts, value_tenants, value_kinds, value_keys, value_aggregates) AS h;
        IF heirs IS NOT NULL AND cardinality(receipt_keys) > 0 THEN
            RAISE EXCEPTION 'a receipt may have to tell of a deleted record' USING ERRCODE = 'PR003';
        END IF;
    END IF;
    IF value_acts && '{take,inherit}' THEN
        INSERT INTO log.claims (tenant_id, kind, key, aggregate_id)
        SELECT n.tenant_id, n.kind, n.key, n.aggregate_id
        FROM unnest(value_acts, value_tenants, value_kinds, value_keys, value_aggregates) AS n (act, tenant_id, kind, key, aggregate_id)
        WHERE n.act IN ('take', 'inherit');
    END IF;
    IF 'unmatch' = ANY (value_acts) THEN
        DELETE FROM log.matches AS m
        USING unnest(value_acts, value_tenants, value_kinds, value_keys, value_aggregates) AS n (act, tenant_id, kind, key, aggregate_id)
        WHERE n.act = 'unmatch' AND m.tenant_id = n.tenant_id AND m.kind = n.kind AND m.key = n.key
          AND m.aggregate_id = n.aggregate_id;
    END IF;
    IF 'match' = ANY (value_acts) THEN
        INSERT INTO log.matches (tenant_id, kind, key, aggregate_id)
        SELECT n.tenant_id, n.kind, n.key, n.aggregate_id
        FROM unnest(value_acts, value_tenants, value_kinds, value_keys, value_aggregates) AS n (act, tenant_id, kind, key, aggregate_id)
        WHERE n.act = 'match';
    END IF;

    IF cardinality(receipt_keys) > 0 THEN
        INSERT INTO log.receipts (tenant_id, idempotency_key, request_hmac, answer, position)
        SELECT n.tenant_id, n.key, n.hmac, n.answer, coalesce(base + n.ends, n.position)
        FROM unnest(receipt_tenants, receipt_keys, receipt_hmacs, receipt_answers, receipt_positions, receipt_ends)
            AS n (tenant_id, key, hmac, answer, position, ends);
    END IF;
END
$$;
COMMENT ON FUNCTION log.append IS
    'Appends a batch: numbers its events on from the head and writes, in the same transaction, the keys of new persons, claims and
matches (value_acts: require, release, take, inherit, unmatch, match; inherit takes for a new record) and receipts, whose position
is base + receipt_ends where that is given. base is the head before. heirs and deleted_holders: new records that took a claim of a
deleted one. Nothing is written if a version, claim or receipt is in the way (unique violation), the log is in another epoch
(PR001), a required claim is not held (PR002) or a receipt may have to tell of a deleted record (PR003): the caller looks closer';

REVOKE ALL ON FUNCTION log.append FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.append TO prospectus_appender;

CREATE VIEW log.head AS
SELECT i.log_id,
       (SELECT e.name FROM log.epochs AS e ORDER BY e.number DESC LIMIT 1) AS epoch,
       coalesce((SELECT e.position FROM log.events AS e ORDER BY e.position DESC LIMIT 1), 0) AS position
FROM log.identity AS i;
COMMENT ON VIEW log.head IS 'One row: the log, its epoch and its highest position (0 where it is empty)';
COMMENT ON COLUMN log.head.log_id IS 'Which log';
COMMENT ON COLUMN log.head.epoch IS 'Its newest epoch''s name; null before the first append';
COMMENT ON COLUMN log.head.position IS 'Highest position';
GRANT SELECT ON log.head TO prospectus_appender, prospectus_relay, prospectus_projector, prospectus_query,
    prospectus_sealer, prospectus_verifier, prospectus_operator, prospectus_people;

-- For users of cqrs-es: the shape that postgres-es' PostgresEventRepository replays from (decision 4).
CREATE VIEW log.cqrs_events WITH (security_invoker = true) AS
SELECT e.aggregate_type,
       e.aggregate_id::text AS aggregate_id,
       e.sequence,
       e.event_type,
       e.event_version::text AS event_version,
       json_build_object(e.event_type, e.payload) AS payload,
       e.metadata
FROM log.events AS e;
COMMENT ON VIEW log.cqrs_events IS 'The log as a postgres-es event table, read-only';
GRANT SELECT ON log.cqrs_events TO prospectus_verifier;

RESET ROLE;

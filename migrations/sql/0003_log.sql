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
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, idempotency_key)
);
CREATE INDEX receipts_created_at ON log.receipts (created_at);
COMMENT ON TABLE log.receipts IS 'First answers to idempotency keys (decision 8), for 7 days';
COMMENT ON COLUMN log.receipts.tenant_id IS 'Whose key it is';
COMMENT ON COLUMN log.receipts.idempotency_key IS 'As the client sent it';
COMMENT ON COLUMN log.receipts.request_hmac IS 'HMAC-SHA-256 of the request under the tenant''s key: another body is refused';
COMMENT ON COLUMN log.receipts.answer IS 'What was answered; never personal data';
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
GRANT SELECT, INSERT, UPDATE ON log.person_keys TO prospectus_appender;
GRANT SELECT ON log.person_keys TO prospectus_projector, prospectus_query, prospectus_verifier;
GRANT SELECT, INSERT ON log.wrapping_keys TO prospectus_appender;
GRANT SELECT ON log.wrapping_keys TO prospectus_projector, prospectus_query, prospectus_verifier;

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

-- Rebuilding a projection while it is read (decision 13): who owns the tables of generations, what is being built, and what a roll-back
-- leads to. The projector makes and drops generations itself, so they belong to a role of their own that owns nothing else: becoming
-- it lets the projector do what it likes with read tables, and nothing with the log.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'prospectus_builder') THEN
        -- Its functions and counts see all rows and add the tenant themselves (decision 15). A policy would do as well, but not while a dump
        -- is restored: pg_dump turns row-level security off, and refreshes views that the tables' policies would then refuse.
        CREATE ROLE prospectus_builder NOLOGIN BYPASSRLS;
        COMMENT ON ROLE prospectus_builder IS 'Owns the tables of projections'' generations; nobody logs in as it';
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- another database of this server is being migrated at the same moment and was first
END
$$;
DO $$
BEGIN
    IF NOT pg_has_role('prospectus_projector', 'prospectus_builder', 'MEMBER') THEN
        GRANT prospectus_builder TO prospectus_projector;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END
$$;
DO $$
BEGIN
    EXECUTE format('GRANT CREATE ON DATABASE %I TO prospectus_builder', current_database());
END
$$;
GRANT USAGE, CREATE ON SCHEMA read TO prospectus_builder;
GRANT USAGE ON SCHEMA access TO prospectus_builder;
GRANT USAGE ON SCHEMA extensions TO prospectus_builder;

-- Generations that are there already become the builder's. The SQL is run only where there are any.
DO $$
DECLARE
    wanted record;
    object record;
BEGIN
    FOR wanted IN SELECT DISTINCT 'read_' || g.generation AS schema FROM read.generations AS g LOOP
        EXECUTE format('ALTER SCHEMA %I OWNER TO prospectus_builder', wanted.schema);
        FOR object IN
            SELECT c.oid::regclass AS name FROM pg_class AS c WHERE c.relnamespace = wanted.schema::regnamespace AND c.relkind = 'r'
        LOOP
            EXECUTE format('ALTER TABLE %s OWNER TO prospectus_builder', object.name);
        END LOOP;
        FOR object IN
            SELECT p.oid::regprocedure AS name FROM pg_proc AS p WHERE p.pronamespace = wanted.schema::regnamespace
        LOOP
            EXECUTE format('ALTER FUNCTION %s OWNER TO prospectus_builder', object.name);
        END LOOP;
        EXECUTE format('DROP POLICY look_for_likes ON %I.companies', wanted.schema);
    END LOOP;
    FOR object IN
        SELECT c.oid::regclass AS name FROM pg_class AS c
        WHERE c.relnamespace = 'read'::regnamespace AND c.relname IN ('companies', 'company_prospect', 'company_prospect_view')
    LOOP
        EXECUTE format('ALTER VIEW %s OWNER TO prospectus_builder', object.name);
    END LOOP;
END
$$;

SET ROLE prospectus_owner;

CREATE SEQUENCE read.generation_numbers AS integer START 2;
COMMENT ON SEQUENCE read.generation_numbers IS 'A number is never given to a second generation, also where the first is gone: who still writes to that meets nobody';
SELECT setval('read.generation_numbers', (SELECT max(generation) FROM read.generations))
WHERE EXISTS (SELECT FROM read.generations);
GRANT USAGE ON SEQUENCE read.generation_numbers TO prospectus_projector;

ALTER TABLE read.generations ADD COLUMN loaded_at timestamptz;
COMMENT ON COLUMN read.generations.loaded_at IS 'When its rows and indexes were there, so that steps could begin; null before';
UPDATE read.generations SET loaded_at = created_at;

ALTER TABLE read.live
    ADD COLUMN previous_generation integer,
    ADD COLUMN views_generation integer,
    ADD COLUMN swapped_at timestamptz,
    ADD FOREIGN KEY (projection, previous_generation) REFERENCES read.generations;
COMMENT ON COLUMN read.live.previous_generation IS 'The one that was live before: what a roll-back leads to';
COMMENT ON COLUMN read.live.views_generation IS 'The one that the views under the fixed names show; they follow the live one';
COMMENT ON COLUMN read.live.swapped_at IS 'Since when it is live; null for the first';
UPDATE read.live SET views_generation = generation;

CREATE TABLE read.rebuilds (
    rebuild_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    projection text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('rebuild', 'rollback')),
    code_version integer,
    memory_bytes bigint NOT NULL CHECK (memory_bytes > 0),
    room_bytes bigint,
    room_from text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    cancel boolean NOT NULL DEFAULT false,
    worker uuid,
    beat_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    generation integer,
    phase text NOT NULL DEFAULT 'waiting',
    done bigint NOT NULL DEFAULT 0,
    total bigint NOT NULL DEFAULT 0,
    position bigint,
    rows_checked bigint,
    differences bigint,
    first_differences text[] NOT NULL DEFAULT '{}',
    live_differences bigint,
    first_live_differences text[] NOT NULL DEFAULT '{}',
    error text,
    outcome text CHECK (outcome IN ('live', 'failed', 'cancelled')),
    finished_at timestamptz,
    CHECK ((outcome IS NULL) = (finished_at IS NULL))
);
CREATE UNIQUE INDEX rebuilds_open ON read.rebuilds (projection) WHERE finished_at IS NULL;
COMMENT ON TABLE read.rebuilds IS 'What projectors are asked to build or to roll back, and how far they are: one at a time of each projection';
COMMENT ON COLUMN read.rebuilds.rebuild_id IS '1, 2, 3, ...';
COMMENT ON COLUMN read.rebuilds.projection IS 'company_prospect, ...';
COMMENT ON COLUMN read.rebuilds.kind IS 'rebuild: build the next generation and make it live; rollback: make the previous one live again';
COMMENT ON COLUMN read.rebuilds.code_version IS 'Only a projector with this version of the code takes it; null: any';
COMMENT ON COLUMN read.rebuilds.memory_bytes IS 'The bound on what is folded in memory at a time';
COMMENT ON COLUMN read.rebuilds.room_bytes IS 'Bytes that the new generation may take on the server''s disk; null where nobody knows';
COMMENT ON COLUMN read.rebuilds.room_from IS 'Where room_bytes is from, for people';
COMMENT ON COLUMN read.rebuilds.requested_at IS 'When it was asked for';
COMMENT ON COLUMN read.rebuilds.cancel IS 'Whether it is to be given up';
COMMENT ON COLUMN read.rebuilds.worker IS 'The projector that is at it: every change of this row and of what is live asks whether it still is';
COMMENT ON COLUMN read.rebuilds.beat_at IS 'When that one last said so';
COMMENT ON COLUMN read.rebuilds.attempts IS 'How often it was taken';
COMMENT ON COLUMN read.rebuilds.generation IS 'What it builds, or makes live';
COMMENT ON COLUMN read.rebuilds.phase IS 'waiting, preparing, companies, prospects, indexes, catching_up, checking, counting, swapping, done';
COMMENT ON COLUMN read.rebuilds.done IS 'How much of the phase is done: of companies and prospects events, each once when it is folded and once when its record is written; indexes; positions';
COMMENT ON COLUMN read.rebuilds.total IS 'How much the phase has of them';
COMMENT ON COLUMN read.rebuilds.position IS 'How far the generation is';
COMMENT ON COLUMN read.rebuilds.rows_checked IS 'Rows that the independent fold of the log asked for';
COMMENT ON COLUMN read.rebuilds.differences IS 'Differences of the generation from that';
COMMENT ON COLUMN read.rebuilds.first_differences IS 'The first of them: table, row and column, without values, which may be personal';
COMMENT ON COLUMN read.rebuilds.live_differences IS 'Rows that the generation has otherwise than the one that was live, as far as both were: they stop nothing';
COMMENT ON COLUMN read.rebuilds.first_live_differences IS 'The first of them: table, row and columns';
COMMENT ON COLUMN read.rebuilds.error IS 'Why it failed, or was tried again';
COMMENT ON COLUMN read.rebuilds.outcome IS 'live: the generation is live; failed; cancelled';
COMMENT ON COLUMN read.rebuilds.finished_at IS 'When';
GRANT SELECT, INSERT, UPDATE ON read.rebuilds TO prospectus_projector;
GRANT SELECT ON read.rebuilds TO prospectus_operator, prospectus_verifier;

RESET ROLE;

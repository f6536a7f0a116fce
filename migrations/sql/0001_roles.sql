-- The database's roles (decisions 15 and 16). Roles belong to the whole server, so each is made only where it is missing.
-- Service roles get their passwords from whoever runs the server, never from here; without one they cannot log in.
DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('prospectus_owner', 'NOLOGIN', 'Owns every object; nobody logs in as it'),
            ('prospectus_appender', 'LOGIN', 'Appends events with their claims, matches, receipts and keys'),
            ('prospectus_relay', 'LOGIN', 'Reads the log to publish it'),
            ('prospectus_projector', 'LOGIN', 'Reads the log, writes the read tables'),
            ('prospectus_query', 'LOGIN', 'Serves one tenant at a time, on replicas'),
            ('prospectus_sealer', 'LOGIN', 'Reads the log to sign tree heads'),
            ('prospectus_verifier', 'LOGIN', 'Reads the log and the read tables of all tenants to compare them'),
            ('prospectus_operator', 'LOGIN', 'Keeps tenants, API keys and the SQL roles of people'),
            ('prospectus_people', 'NOLOGIN', 'Group of the read-only SQL roles of people, each bound to one tenant')
        ) AS roles (name, login, purpose)
    LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted.name) THEN
                EXECUTE format('CREATE ROLE %I %s', wanted.name, wanted.login);
                EXECUTE format('COMMENT ON ROLE %I IS %L', wanted.name, wanted.purpose);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- another database of this server is being migrated at the same moment and was first
        END;
    END LOOP;
END
$$;

-- The planner of the append path must use the index for the highest position also when its plan was made on an empty
-- table (decision 2), and an appender that hangs or has gone away must not hold the log's lock, or wait for it (decision 3). The
-- projector must not wait for ever behind somebody else's lock; its largest statements (20,000 rows of a fan-out) take a few seconds.
DO $$
BEGIN
    EXECUTE format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CREATE ON DATABASE %I TO prospectus_owner', current_database());
    EXECUTE format('ALTER ROLE prospectus_appender IN DATABASE %I SET idle_in_transaction_session_timeout = ''5s''', current_database());
    EXECUTE format('ALTER ROLE prospectus_appender IN DATABASE %I SET lock_timeout = ''5s''', current_database());
    EXECUTE format('ALTER ROLE prospectus_appender IN DATABASE %I SET client_connection_check_interval = ''2s''', current_database());
    EXECUTE format('ALTER ROLE prospectus_appender IN DATABASE %I SET enable_seqscan = off', current_database());
    EXECUTE format('ALTER ROLE prospectus_projector IN DATABASE %I SET lock_timeout = ''10s''', current_database());
    EXECUTE format('ALTER ROLE prospectus_projector IN DATABASE %I SET statement_timeout = ''60s''', current_database());
    EXECUTE format('ALTER ROLE prospectus_query IN DATABASE %I SET default_transaction_read_only = on', current_database());
    EXECUTE format('ALTER ROLE prospectus_query IN DATABASE %I SET statement_timeout = ''30s''', current_database());
END
$$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

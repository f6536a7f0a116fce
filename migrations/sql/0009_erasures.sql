-- Forgetting persons (decision 17): who was erased, what they must not come back by, and the one way in which a key is emptied. And the
-- rotation of key-encryption keys.
SET ROLE prospectus_owner;

ALTER TABLE access.tenants ADD COLUMN erased_persons text NOT NULL DEFAULT 'refuse' CHECK (erased_persons IN ('refuse', 'admit'));
COMMENT ON COLUMN access.tenants.erased_persons IS 'What becomes of values that name an erased person: refuse them, or admit them as somebody new';

CREATE TABLE log.erasures (
    tenant_id uuid NOT NULL,
    person_id uuid NOT NULL,
    position bigint NOT NULL UNIQUE CHECK (position >= 1),
    erased_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, person_id)
);
COMMENT ON TABLE log.erasures IS 'Persons who were erased, in the order of their events; kept outside the database as well (PROSPECTUS_ERASURES_FILE)';
COMMENT ON COLUMN log.erasures.tenant_id IS 'Whose person';
COMMENT ON COLUMN log.erasures.person_id IS 'The record, which stays without any personal data';
COMMENT ON COLUMN log.erasures.position IS 'The event that erased the person';
COMMENT ON COLUMN log.erasures.erased_at IS 'The time of that event';

CREATE TABLE log.erased_values (
    tenant_id uuid NOT NULL,
    kind text NOT NULL,
    key text NOT NULL,
    person_id uuid NOT NULL,
    PRIMARY KEY (tenant_id, kind, key, person_id)
);
COMMENT ON TABLE log.erased_values IS 'What an erased person is recognised by when somebody enters the person again: HMACs, worth nothing without the index key';
COMMENT ON COLUMN log.erased_values.tenant_id IS 'Whose person';
COMMENT ON COLUMN log.erased_values.kind IS 'As in log.matches: email';
COMMENT ON COLUMN log.erased_values.key IS 'As in log.matches: an HMAC under the tenant''s key, which is outside the database and its backups';
COMMENT ON COLUMN log.erased_values.person_id IS 'The erased person';

ALTER TABLE log.erasures ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE log.erased_values ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY forget ON log.erasures TO prospectus_owner USING (true) WITH CHECK (true);
CREATE POLICY forget ON log.erased_values TO prospectus_owner USING (true) WITH CHECK (true);
CREATE POLICY read_all ON log.erasures FOR SELECT TO prospectus_appender, prospectus_projector, prospectus_verifier USING (true);
CREATE POLICY read_all ON log.erased_values FOR SELECT TO prospectus_appender, prospectus_verifier USING (true);
GRANT SELECT ON log.erasures TO prospectus_appender, prospectus_projector, prospectus_verifier;
GRANT SELECT ON log.erased_values TO prospectus_appender, prospectus_verifier;

-- A key that is emptied is to be nowhere else: statistics keep samples of a column until the table is analysed again.
ALTER TABLE log.person_keys ALTER COLUMN wrapped_key SET STATISTICS 0;
ALTER TABLE log.import_files ALTER COLUMN wrapped_key SET STATISTICS 0;

-- What log.forget and the triggers below do, they do as the owner: no service role may do any of it by itself.
CREATE POLICY forget ON log.person_keys TO prospectus_owner USING (true) WITH CHECK (true);
CREATE POLICY forget ON log.claims TO prospectus_owner USING (true) WITH CHECK (true);
CREATE POLICY forget ON log.matches TO prospectus_owner USING (true) WITH CHECK (true);

-- The one way in which a person's key is emptied: together with the event that says so, and only with it.
CREATE FUNCTION log.forget(
    tenants uuid[], persons uuid[], sequences bigint[],
    value_tenants uuid[], value_persons uuid[], value_kinds text[], value_keys text[], value_kept boolean[]
) RETURNS void LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
BEGIN
    IF EXISTS (
        SELECT FROM unnest(tenants, persons, sequences) AS n (tenant_id, person_id, sequence)
        WHERE NOT EXISTS (
            SELECT FROM log.events AS e
            WHERE e.tenant_id = n.tenant_id AND e.aggregate_id = n.person_id AND e.sequence = n.sequence
              AND e.event_type = 'ProspectErased'
        )
    ) THEN
        RAISE EXCEPTION 'no event says that the person is erased' USING ERRCODE = 'PR006';
    END IF;
    INSERT INTO log.erasures (tenant_id, person_id, position, erased_at)
    SELECT e.tenant_id, e.aggregate_id, e.position, e.recorded_at
    FROM unnest(tenants, persons, sequences) AS n (tenant_id, person_id, sequence)
    JOIN log.events AS e ON e.tenant_id = n.tenant_id AND e.aggregate_id = n.person_id AND e.sequence = n.sequence
    ON CONFLICT (tenant_id, person_id) DO NOTHING;

    UPDATE log.person_keys AS k SET wrapping_key_id = NULL, wrapped_key = NULL, erased_position = e.position
    FROM unnest(tenants, persons) AS n (tenant_id, person_id)
    JOIN log.erasures AS e ON e.tenant_id = n.tenant_id AND e.person_id = n.person_id
    WHERE k.tenant_id = n.tenant_id AND k.person_id = n.person_id AND k.wrapped_key IS NOT NULL;
    IF EXISTS (
        SELECT FROM unnest(tenants, persons) AS n (tenant_id, person_id)
        WHERE NOT EXISTS (
            SELECT FROM log.person_keys AS k
            WHERE k.tenant_id = n.tenant_id AND k.person_id = n.person_id AND k.erased_position IS NOT NULL
        )
    ) THEN
        RAISE EXCEPTION 'the person has no key row' USING ERRCODE = 'PR006';
    END IF;

    -- Released claims too: what they hold is an HMAC of the person's own.
    DELETE FROM log.claims AS c
    USING unnest(value_tenants, value_persons, value_kinds, value_keys) AS v (tenant_id, person_id, kind, key)
    JOIN log.erasures AS e ON e.tenant_id = v.tenant_id AND e.person_id = v.person_id
    WHERE c.tenant_id = v.tenant_id AND c.kind = v.kind AND c.key = v.key AND c.aggregate_id = v.person_id AND c.released;
    DELETE FROM log.claims AS c
    USING unnest(value_tenants, value_persons, value_kinds, value_keys) AS v (tenant_id, person_id, kind, key)
    JOIN log.erasures AS e ON e.tenant_id = v.tenant_id AND e.person_id = v.person_id
    WHERE c.tenant_id = v.tenant_id AND c.kind = v.kind AND c.key = v.key AND c.aggregate_id = v.person_id AND NOT c.released;
    DELETE FROM log.matches AS m
    USING unnest(value_tenants, value_persons, value_kinds, value_keys) AS v (tenant_id, person_id, kind, key)
    JOIN log.erasures AS e ON e.tenant_id = v.tenant_id AND e.person_id = v.person_id
    WHERE m.tenant_id = v.tenant_id AND m.kind = v.kind AND m.key = v.key AND m.aggregate_id = v.person_id;
    INSERT INTO log.erased_values (tenant_id, kind, key, person_id)
    SELECT DISTINCT v.tenant_id, v.kind, v.key, v.person_id
    FROM unnest(value_tenants, value_persons, value_kinds, value_keys, value_kept) AS v (tenant_id, person_id, kind, key, kept)
    JOIN log.erasures AS e ON e.tenant_id = v.tenant_id AND e.person_id = v.person_id
    WHERE v.kept
    ON CONFLICT DO NOTHING;
END
$$;
COMMENT ON FUNCTION log.forget IS
    'Empties the keys of erased persons, in the transaction of the events that say so (sequences), and removes their claims and matches, of
which those that are kept go to log.erased_values. It only ever forgets: nothing is emptied without such an event (PR006), a key row that is
missing is an error (PR006), and done again it changes nothing';
REVOKE ALL ON FUNCTION log.forget FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log.forget TO prospectus_appender;

CREATE FUNCTION access.refuses_erased_persons(tenant uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT EXISTS (SELECT FROM access.tenants AS t WHERE t.tenant_id = $1 AND t.erased_persons = 'refuse')
$$;
REVOKE ALL ON FUNCTION access.refuses_erased_persons FROM PUBLIC;
GRANT EXECUTE ON FUNCTION access.refuses_erased_persons TO prospectus_appender;
COMMENT ON FUNCTION access.refuses_erased_persons IS 'Whether a tenant refuses values that name an erased person';

-- A constraint rather than a look before: between a look and the append the person may be erased.
CREATE FUNCTION log.refuse_erased_persons() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM added AS n
        JOIN log.erased_values AS e ON e.tenant_id = n.tenant_id AND e.kind = n.kind AND e.key = n.key
        WHERE access.refuses_erased_persons(n.tenant_id)
    ) THEN
        RAISE EXCEPTION 'a value names an erased person' USING ERRCODE = 'PR004';
    END IF;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION log.refuse_erased_persons FROM PUBLIC;
COMMENT ON FUNCTION log.refuse_erased_persons IS 'Refuses matches that name an erased person (PR004), where the tenant wants that';
CREATE TRIGGER refuse_erased_persons AFTER INSERT ON log.matches REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_erased_persons();

-- Key-encryption keys: once all keys that one wraps are wrapped by another, it is retired, and may be taken out of the key files.
ALTER TABLE log.wrapping_keys ADD COLUMN retired_at timestamptz;
COMMENT ON COLUMN log.wrapping_keys.retired_at IS 'From when on nothing is wrapped by it, and key files may do without it';

CREATE FUNCTION log.refuse_retired_keys() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM added AS n JOIN log.wrapping_keys AS w ON w.wrapping_key_id = n.wrapping_key_id
        WHERE w.retired_at IS NOT NULL
    ) THEN
        RAISE EXCEPTION 'the key-encryption key is retired' USING ERRCODE = 'PR005';
    END IF;
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION log.refuse_retired_keys FROM PUBLIC;
COMMENT ON FUNCTION log.refuse_retired_keys IS 'Refuses keys wrapped by a retired key (PR005): a service that still has the old key file';
CREATE TRIGGER refuse_retired_keys AFTER INSERT ON log.person_keys REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_retired_keys();
CREATE TRIGGER refuse_retired_keys AFTER INSERT ON log.import_files REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_retired_keys();

-- And a re-wrapping that began with an older key file.
CREATE TRIGGER refuse_retired_rewraps AFTER UPDATE ON log.person_keys REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_retired_keys();
CREATE TRIGGER refuse_retired_rewraps AFTER UPDATE ON log.import_files REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse_retired_keys();

RESET ROLE;

-- Who re-wraps keys: nobody logs in as it; `prospectus keys rewrap` takes its rights for that work and gives up all others.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'prospectus_rewrapper') THEN
        CREATE ROLE prospectus_rewrapper NOLOGIN;
        COMMENT ON ROLE prospectus_rewrapper IS 'Wraps keys with another key-encryption key; nobody logs in as it';
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- another database of this server is being migrated at the same moment and was first
END
$$;

SET ROLE prospectus_owner;
GRANT USAGE ON SCHEMA log TO prospectus_rewrapper;
GRANT SELECT, UPDATE (wrapping_key_id, wrapped_key) ON log.person_keys, log.import_files TO prospectus_rewrapper;
-- Only keys that are there: an emptied row is none of its business.
CREATE POLICY rewrap ON log.person_keys TO prospectus_rewrapper
    USING (wrapped_key IS NOT NULL) WITH CHECK (wrapped_key IS NOT NULL);
CREATE POLICY rewrap ON log.import_files TO prospectus_rewrapper USING (true) WITH CHECK (true);
RESET ROLE;

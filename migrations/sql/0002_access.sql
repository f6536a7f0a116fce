-- Who may come in: tenants, their API keys, and the SQL roles of people.
SET ROLE prospectus_owner;

CREATE SCHEMA access;
COMMENT ON SCHEMA access IS 'Tenants, API keys and the SQL roles of people';
GRANT USAGE ON SCHEMA access TO prospectus_appender, prospectus_projector, prospectus_query, prospectus_verifier, prospectus_operator, prospectus_people;

CREATE TABLE access.tenants (
    tenant_id uuid PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE access.tenants IS 'A tenant is a wall (decision 15): no request sees or changes a row of another';
COMMENT ON COLUMN access.tenants.tenant_id IS 'On every row that belongs to the tenant';
COMMENT ON COLUMN access.tenants.name IS 'Short name that operators type';
COMMENT ON COLUMN access.tenants.created_at IS 'When the tenant was made';

CREATE TABLE access.api_keys (
    prefix text PRIMARY KEY CHECK (prefix ~ '^pk_[A-Za-z0-9]{12}$'),
    tenant_id uuid NOT NULL REFERENCES access.tenants,
    secret_sha256 bytea NOT NULL CHECK (octet_length(secret_sha256) = 32),
    role text NOT NULL CHECK (role IN ('reader', 'writer', 'auditor', 'admin')),
    name text NOT NULL DEFAULT '' CHECK (length(name) <= 255),
    created_at timestamptz NOT NULL DEFAULT now(),
    revoked_at timestamptz CHECK (revoked_at >= created_at)
);
CREATE INDEX api_keys_tenant ON access.api_keys (tenant_id);
COMMENT ON TABLE access.api_keys IS 'Keys of clients; the secret is shown once and only its hash stays (256 random bits need no slow hash)';
COMMENT ON COLUMN access.api_keys.prefix IS 'The part of the key before the dot; may be logged';
COMMENT ON COLUMN access.api_keys.tenant_id IS 'Whose key it is';
COMMENT ON COLUMN access.api_keys.secret_sha256 IS 'SHA-256 of the part after the dot';
COMMENT ON COLUMN access.api_keys.role IS 'What the key may do, see the API document';
COMMENT ON COLUMN access.api_keys.name IS 'What the operator calls it';
COMMENT ON COLUMN access.api_keys.created_at IS 'When it was made';
COMMENT ON COLUMN access.api_keys.revoked_at IS 'From when on it is refused';

CREATE TABLE access.sql_roles (
    role_name name PRIMARY KEY,
    tenant_id uuid NOT NULL REFERENCES access.tenants
);
COMMENT ON TABLE access.sql_roles IS 'The tenant of each person''s SQL role, found by session_user, which no SET can change';
COMMENT ON COLUMN access.sql_roles.role_name IS 'A login role, member of prospectus_people';
COMMENT ON COLUMN access.sql_roles.tenant_id IS 'The one tenant whose rows it sees';

ALTER TABLE access.tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE access.api_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE access.sql_roles ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY owner ON access.tenants TO prospectus_owner, prospectus_operator USING (true) WITH CHECK (true);
CREATE POLICY owner ON access.api_keys TO prospectus_owner, prospectus_operator USING (true) WITH CHECK (true);
CREATE POLICY owner ON access.sql_roles TO prospectus_owner, prospectus_operator USING (true) WITH CHECK (true);
CREATE POLICY verifier ON access.tenants FOR SELECT TO prospectus_verifier USING (true);
GRANT SELECT, INSERT, UPDATE ON access.tenants, access.api_keys TO prospectus_operator;
GRANT SELECT, INSERT, DELETE ON access.sql_roles TO prospectus_operator;
GRANT SELECT ON access.tenants TO prospectus_verifier;

-- A key is looked up before its tenant is known, so the services that authenticate ask this function and see nothing else.
CREATE FUNCTION access.find_api_key(wanted_prefix text)
RETURNS TABLE (tenant_id uuid, secret_sha256 bytea, role text, revoked boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT k.tenant_id, k.secret_sha256, k.role, k.revoked_at IS NOT NULL
    FROM access.api_keys AS k WHERE k.prefix = wanted_prefix
$$;
REVOKE ALL ON FUNCTION access.find_api_key FROM PUBLIC;
GRANT EXECUTE ON FUNCTION access.find_api_key TO prospectus_appender, prospectus_query;
COMMENT ON FUNCTION access.find_api_key IS 'What is needed to check one API key';

-- The tenant of a request: a setting made inside its transaction by the query role; none, or an empty one, is no tenant.
CREATE FUNCTION access.request_tenant() RETURNS uuid
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT nullif(current_setting('prospectus.tenant', true), '')::uuid
$$;
COMMENT ON FUNCTION access.request_tenant IS 'The tenant that the query role serves in this transaction, or null';

-- The tenant of a person's SQL role. session_user cannot be changed by SET, and the table is out of the person's reach.
CREATE FUNCTION access.person_tenant() RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER PARALLEL SAFE SET search_path = '' AS $$
    SELECT r.tenant_id FROM access.sql_roles AS r WHERE r.role_name = session_user
$$;
REVOKE ALL ON FUNCTION access.person_tenant FROM PUBLIC;
GRANT EXECUTE ON FUNCTION access.person_tenant TO prospectus_people;
COMMENT ON FUNCTION access.person_tenant IS 'The tenant that the logged-in SQL role is bound to, or null';

RESET ROLE;

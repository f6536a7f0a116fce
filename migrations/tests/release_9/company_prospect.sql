-- The tables of one generation of the projection company_prospect, in the schema {schema} (read_1, read_2, ...).
-- Run by the migrations' runner, which puts the schema's name in. Lists are read along (tenant_id, sort key, id), so every index
-- begins with the tenant, and text is compared byte by byte.
CREATE SCHEMA {schema};
COMMENT ON SCHEMA {schema} IS 'One generation of the projection company_prospect';
GRANT USAGE ON SCHEMA {schema} TO prospectus_projector, prospectus_query, prospectus_verifier, prospectus_operator, prospectus_people;

CREATE TABLE {schema}.companies (
    tenant_id uuid NOT NULL,
    company_id uuid NOT NULL,
    version bigint NOT NULL CHECK (version >= 1),
    position bigint NOT NULL CHECK (position >= 1),
    domain text COLLATE "C" CHECK (length(domain) BETWEEN 1 AND 253 AND domain = lower(domain)),
    additional_domains jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(additional_domains) = 'array'),
    name text CHECK (length(name) BETWEEN 1 AND 255),
    name_sort text COLLATE "C",
    name_key text COLLATE "C" CHECK (length(name_key) BETWEEN 1 AND 255),
    legal_name text CHECK (length(legal_name) <= 255),
    company_type text COLLATE "C" CHECK (length(company_type) <= 100),
    industry text COLLATE "C" CHECK (length(industry) <= 100),
    founding_date text COLLATE "C" CHECK (founding_date ~ '^[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?$'),
    short_description text CHECK (length(short_description) <= 1000),
    long_description text CHECK (length(long_description) <= 20000),
    employee_count bigint CHECK (employee_count >= 0),
    min_employee_size bigint CHECK (min_employee_size >= 0),
    max_employee_size bigint CHECK (max_employee_size >= min_employee_size),
    employee_size_link text CHECK (length(employee_size_link) <= 2048),
    revenue bigint,
    revenue_currency text CHECK (revenue_currency ~ '^[A-Z]{3}$'),
    address text,
    city text COLLATE "C",
    state text COLLATE "C",
    country text COLLATE "C" CHECK (country ~ '^[A-Z]{2}$'),
    zip_code text,
    phone text,
    mobile_phone text,
    email_address text,
    logo_url text CHECK (length(logo_url) <= 2048),
    social_media jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(social_media) = 'array'),
    external_refs jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(external_refs) = 'array'),
    attributes jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(attributes) = 'object'),
    flags jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(flags) = 'array'),
    merged_into uuid,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL CHECK (updated_at >= created_at),
    deleted_at timestamptz CHECK (deleted_at >= created_at),
    looks_like_company_id uuid,
    review_since timestamptz CHECK (review_since >= created_at),
    PRIMARY KEY (tenant_id, company_id),
    CHECK ((looks_like_company_id IS NULL) = (review_since IS NULL)),
    CHECK ((name IS NULL) = (name_sort IS NULL)),
    CHECK (name IS NOT NULL OR domain IS NOT NULL)
);
COMMENT ON TABLE {schema}.companies IS 'One row per company, deleted ones included';
COMMENT ON COLUMN {schema}.companies.tenant_id IS 'Whose company';
COMMENT ON COLUMN {schema}.companies.company_id IS 'UUID v7';
COMMENT ON COLUMN {schema}.companies.version IS 'Sequence of its last event';
COMMENT ON COLUMN {schema}.companies.position IS 'Position of its last event';
COMMENT ON COLUMN {schema}.companies.domain IS 'Registrable domain, lower case, ASCII';
COMMENT ON COLUMN {schema}.companies.additional_domains IS 'Further domains, sorted';
COMMENT ON COLUMN {schema}.companies.name IS 'As people write it';
COMMENT ON COLUMN {schema}.companies.name_sort IS 'Lower-case name, what sort=name goes by';
COMMENT ON COLUMN {schema}.companies.name_key IS 'The name as names are compared: letters and digits in lower case, without the legal form; null where nothing is left of it';
COMMENT ON COLUMN {schema}.companies.legal_name IS 'Where it differs';
COMMENT ON COLUMN {schema}.companies.company_type IS 'public, private, non_profit, ...';
COMMENT ON COLUMN {schema}.companies.industry IS 'Primary industry';
COMMENT ON COLUMN {schema}.companies.founding_date IS 'Year, year-month or full date';
COMMENT ON COLUMN {schema}.companies.short_description IS 'At most 1,000 characters';
COMMENT ON COLUMN {schema}.companies.long_description IS 'At most 20,000 characters';
COMMENT ON COLUMN {schema}.companies.employee_count IS 'Estimated number of employees';
COMMENT ON COLUMN {schema}.companies.min_employee_size IS 'Lower bound of the size band';
COMMENT ON COLUMN {schema}.companies.max_employee_size IS 'Upper bound of the size band';
COMMENT ON COLUMN {schema}.companies.employee_size_link IS 'Where the size is from';
COMMENT ON COLUMN {schema}.companies.revenue IS 'Annual revenue in whole units of revenue_currency';
COMMENT ON COLUMN {schema}.companies.revenue_currency IS 'ISO 4217';
COMMENT ON COLUMN {schema}.companies.address IS 'Headquarters';
COMMENT ON COLUMN {schema}.companies.city IS 'Headquarters';
COMMENT ON COLUMN {schema}.companies.state IS 'Headquarters';
COMMENT ON COLUMN {schema}.companies.country IS 'ISO 3166-1 alpha-2';
COMMENT ON COLUMN {schema}.companies.zip_code IS 'Headquarters';
COMMENT ON COLUMN {schema}.companies.phone IS 'E.164, or as given and flagged';
COMMENT ON COLUMN {schema}.companies.mobile_phone IS 'E.164, or as given and flagged';
COMMENT ON COLUMN {schema}.companies.email_address IS 'Primary contact';
COMMENT ON COLUMN {schema}.companies.logo_url IS 'URL';
COMMENT ON COLUMN {schema}.companies.social_media IS 'List of {social_media_id, platform, url, created_at, updated_at}';
COMMENT ON COLUMN {schema}.companies.external_refs IS 'Set of {source, id}, sorted';
COMMENT ON COLUMN {schema}.companies.attributes IS 'What has no column';
COMMENT ON COLUMN {schema}.companies.flags IS 'What a person should look at: phone_not_e164, ...';
COMMENT ON COLUMN {schema}.companies.merged_into IS 'The company that it was merged into, which may have been merged itself since: merged_companies has the end';
COMMENT ON COLUMN {schema}.companies.created_at IS 'Time of its first event';
COMMENT ON COLUMN {schema}.companies.updated_at IS 'Time of its last event';
COMMENT ON COLUMN {schema}.companies.deleted_at IS 'Set while it is deleted';
COMMENT ON COLUMN {schema}.companies.looks_like_company_id IS 'Set while the company is in review: the one whose name it has in the same country';
COMMENT ON COLUMN {schema}.companies.review_since IS 'Since when it is in review';

CREATE TABLE {schema}.merged_companies (
    tenant_id uuid NOT NULL,
    company_id uuid NOT NULL,
    primary_id uuid NOT NULL CHECK (primary_id <> company_id),
    PRIMARY KEY (tenant_id, company_id)
);
COMMENT ON TABLE {schema}.merged_companies IS 'Which company stands for a merged one: prospects follow by this pointer (decision 6)';
COMMENT ON COLUMN {schema}.merged_companies.tenant_id IS 'Whose companies';
COMMENT ON COLUMN {schema}.merged_companies.company_id IS 'A company that was merged into another';
COMMENT ON COLUMN {schema}.merged_companies.primary_id IS 'The end of the chain of merges: a company that is not merged, though it may be deleted';

CREATE TABLE {schema}.company_prospect (
    tenant_id uuid NOT NULL,
    row_id uuid NOT NULL,
    position bigint NOT NULL CHECK (position >= 1),
    assigned_company_id uuid,
    company_id uuid,
    domain text COLLATE "C",
    company_name text,
    company_name_sort text COLLATE "C",
    industry text COLLATE "C",
    employee_count bigint,
    min_employee_size bigint,
    max_employee_size bigint,
    revenue bigint,
    company_address text,
    company_city text COLLATE "C",
    company_state text COLLATE "C",
    company_country text COLLATE "C",
    company_zip_code text,
    company_phone text,
    company_mobile_phone text,
    company_version bigint,
    company_created_at timestamptz,
    company_updated_at timestamptz,
    prospect_id uuid CHECK (prospect_id IS NULL OR prospect_id = row_id),
    salutation text CHECK (length(salutation) <= 50),
    first_name text CHECK (length(first_name) <= 255),
    last_name text CHECK (length(last_name) <= 255),
    prospect_name_sort text COLLATE "C",
    email text,
    email_key text COLLATE "C",
    job_title text COLLATE "C" CHECK (length(job_title) <= 255),
    job_title_level text COLLATE "C",
    department text COLLATE "C" CHECK (length(department) <= 255),
    job_title_link text CHECK (length(job_title_link) <= 2048),
    prospect_address text,
    prospect_city text COLLATE "C",
    prospect_state text COLLATE "C",
    prospect_country text COLLATE "C" CHECK (prospect_country ~ '^[A-Z]{2}$'),
    prospect_zip_code text,
    prospect_phone text,
    prospect_mobile_phone text,
    prospect_external_refs jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(prospect_external_refs) = 'array'),
    prospect_attributes jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(prospect_attributes) = 'object'),
    prospect_flags jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(prospect_flags) = 'array'),
    prospect_version bigint CHECK (prospect_version >= 1),
    prospect_position bigint CHECK (prospect_position >= 1),
    prospect_created_at timestamptz,
    prospect_updated_at timestamptz CHECK (prospect_updated_at >= prospect_created_at),
    prospect_deleted_at timestamptz CHECK (prospect_deleted_at >= prospect_created_at),
    prospect_erased_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL CHECK (updated_at >= created_at),
    review text COLLATE "C" CHECK (review IN ('no_company', 'name_only', 'suspicious_domain', 'left_alone')),
    review_since timestamptz CHECK (review_since >= prospect_created_at),
    hint_name text CHECK (length(hint_name) <= 255),
    hint_country text COLLATE "C" CHECK (hint_country ~ '^[A-Z]{2}$'),
    hint_host text CHECK (length(hint_host) <= 255),
    PRIMARY KEY (tenant_id, row_id),
    CHECK (review IS NULL OR prospect_id IS NOT NULL),
    CHECK (num_nonnulls(prospect_id, prospect_version, prospect_created_at, prospect_updated_at) IN (0, 4)),
    CHECK (num_nonnulls(company_id, company_version, company_created_at, company_updated_at) IN (0, 4)),
    CHECK (prospect_id IS NOT NULL OR company_id = row_id),
    CHECK (company_id IS NULL OR assigned_company_id IS NOT NULL)
);
COMMENT ON TABLE {schema}.company_prospect IS 'One row per prospect with its company''s columns, and one row for each live company without a live prospect';
COMMENT ON COLUMN {schema}.company_prospect.tenant_id IS 'Whose row';
COMMENT ON COLUMN {schema}.company_prospect.row_id IS 'The prospect, or the company where there is no prospect';
COMMENT ON COLUMN {schema}.company_prospect.position IS 'Highest position of what the row shows: the prospect''s last event or the company''s';
COMMENT ON COLUMN {schema}.company_prospect.assigned_company_id IS 'The company that the prospect was given, whatever became of it';
COMMENT ON COLUMN {schema}.company_prospect.company_id IS 'What that leads to: none if deleted, the primary if merged';
COMMENT ON COLUMN {schema}.company_prospect.domain IS 'The company''s';
COMMENT ON COLUMN {schema}.company_prospect.company_name IS 'The company''s';
COMMENT ON COLUMN {schema}.company_prospect.company_name_sort IS 'Lower-case company name';
COMMENT ON COLUMN {schema}.company_prospect.industry IS 'The company''s';
COMMENT ON COLUMN {schema}.company_prospect.employee_count IS 'The company''s';
COMMENT ON COLUMN {schema}.company_prospect.min_employee_size IS 'The company''s';
COMMENT ON COLUMN {schema}.company_prospect.max_employee_size IS 'The company''s';
COMMENT ON COLUMN {schema}.company_prospect.revenue IS 'The company''s';
COMMENT ON COLUMN {schema}.company_prospect.company_address IS 'The company''s';
COMMENT ON COLUMN {schema}.company_prospect.company_city IS 'The company''s';
COMMENT ON COLUMN {schema}.company_prospect.company_state IS 'The company''s';
COMMENT ON COLUMN {schema}.company_prospect.company_country IS 'The company''s';
COMMENT ON COLUMN {schema}.company_prospect.company_zip_code IS 'The company''s';
COMMENT ON COLUMN {schema}.company_prospect.company_phone IS 'The company''s';
COMMENT ON COLUMN {schema}.company_prospect.company_mobile_phone IS 'The company''s';
COMMENT ON COLUMN {schema}.company_prospect.company_version IS 'The company''s version that the row shows';
COMMENT ON COLUMN {schema}.company_prospect.company_created_at IS 'The company''s';
COMMENT ON COLUMN {schema}.company_prospect.company_updated_at IS 'The company''s';
COMMENT ON COLUMN {schema}.company_prospect.prospect_id IS 'UUID v7; null in a company''s own row';
COMMENT ON COLUMN {schema}.company_prospect.salutation IS 'Personal';
COMMENT ON COLUMN {schema}.company_prospect.first_name IS 'Personal';
COMMENT ON COLUMN {schema}.company_prospect.last_name IS 'Personal';
COMMENT ON COLUMN {schema}.company_prospect.prospect_name_sort IS 'Personal: lower-case last, then first name';
COMMENT ON COLUMN {schema}.company_prospect.email IS 'Personal';
COMMENT ON COLUMN {schema}.company_prospect.email_key IS 'Personal: lower-case e-mail, what it is compared by';
COMMENT ON COLUMN {schema}.company_prospect.job_title IS 'The prospect''s';
COMMENT ON COLUMN {schema}.company_prospect.job_title_level IS 'owner, founder, c_suite, ..., or as given';
COMMENT ON COLUMN {schema}.company_prospect.department IS 'The prospect''s';
COMMENT ON COLUMN {schema}.company_prospect.job_title_link IS 'Personal: where the title is from';
COMMENT ON COLUMN {schema}.company_prospect.prospect_address IS 'Personal';
COMMENT ON COLUMN {schema}.company_prospect.prospect_city IS 'Personal';
COMMENT ON COLUMN {schema}.company_prospect.prospect_state IS 'Personal';
COMMENT ON COLUMN {schema}.company_prospect.prospect_country IS 'ISO 3166-1 alpha-2';
COMMENT ON COLUMN {schema}.company_prospect.prospect_zip_code IS 'Personal';
COMMENT ON COLUMN {schema}.company_prospect.prospect_phone IS 'Personal; E.164, or as given and flagged';
COMMENT ON COLUMN {schema}.company_prospect.prospect_mobile_phone IS 'Personal; E.164, or as given and flagged';
COMMENT ON COLUMN {schema}.company_prospect.prospect_external_refs IS 'Personal: set of {source, id}, sorted';
COMMENT ON COLUMN {schema}.company_prospect.prospect_attributes IS 'Personal: what has no column';
COMMENT ON COLUMN {schema}.company_prospect.prospect_flags IS 'What a person should look at';
COMMENT ON COLUMN {schema}.company_prospect.prospect_version IS 'Sequence of the prospect''s last event';
COMMENT ON COLUMN {schema}.company_prospect.prospect_position IS 'Position of the prospect''s last event';
COMMENT ON COLUMN {schema}.company_prospect.prospect_created_at IS 'Time of its first event';
COMMENT ON COLUMN {schema}.company_prospect.prospect_updated_at IS 'Time of its last event';
COMMENT ON COLUMN {schema}.company_prospect.prospect_deleted_at IS 'Set while it is deleted';
COMMENT ON COLUMN {schema}.company_prospect.prospect_erased_at IS 'Set when the person was erased';
COMMENT ON COLUMN {schema}.company_prospect.created_at IS 'The prospect''s, or the company''s in its own row: a list''s sort key is never null';
COMMENT ON COLUMN {schema}.company_prospect.updated_at IS 'The later of the prospect''s and the company''s change that the row shows';
COMMENT ON COLUMN {schema}.company_prospect.review IS 'Why the prospect is in review where it was given no company, or left_alone. In review is a prospect that is not deleted, shows no company_id and was not left alone; one that was given a company is in review while that is deleted, without a reason here';
COMMENT ON COLUMN {schema}.company_prospect.review_since IS 'Since when it is in review without having been given a company';
COMMENT ON COLUMN {schema}.company_prospect.hint_name IS 'Personal: what an import said of a company that it led not to';
COMMENT ON COLUMN {schema}.company_prospect.hint_country IS 'Personal: that company''s country';
COMMENT ON COLUMN {schema}.company_prospect.hint_host IS 'Personal: the host that led to no company';

ALTER TABLE {schema}.companies ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE {schema}.merged_companies ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE {schema}.company_prospect ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY project ON {schema}.companies TO prospectus_projector USING (true) WITH CHECK (true);
CREATE POLICY project ON {schema}.merged_companies TO prospectus_projector USING (true) WITH CHECK (true);
CREATE POLICY project ON {schema}.company_prospect TO prospectus_projector USING (true) WITH CHECK (true);
CREATE POLICY verify ON {schema}.companies FOR SELECT TO prospectus_verifier USING (true);
CREATE POLICY verify ON {schema}.merged_companies FOR SELECT TO prospectus_verifier USING (true);
CREATE POLICY verify ON {schema}.company_prospect FOR SELECT TO prospectus_verifier USING (true);
CREATE POLICY request ON {schema}.companies FOR SELECT TO prospectus_query USING (tenant_id = access.request_tenant());
CREATE POLICY request ON {schema}.merged_companies FOR SELECT TO prospectus_query USING (tenant_id = access.request_tenant());
CREATE POLICY request ON {schema}.company_prospect FOR SELECT TO prospectus_query USING (tenant_id = access.request_tenant());
CREATE POLICY person ON {schema}.companies FOR SELECT TO prospectus_people USING (tenant_id = (SELECT access.person_tenant()));
CREATE POLICY person ON {schema}.merged_companies FOR SELECT TO prospectus_people USING (tenant_id = (SELECT access.person_tenant()));
CREATE POLICY person ON {schema}.company_prospect FOR SELECT TO prospectus_people USING (tenant_id = (SELECT access.person_tenant()));
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON {schema}.companies, {schema}.merged_companies, {schema}.company_prospect TO prospectus_projector;
GRANT SELECT ON {schema}.companies, {schema}.merged_companies, {schema}.company_prospect TO prospectus_query, prospectus_verifier, prospectus_people;

-- Personal columns keep no statistics: erasing a person must leave no value in the catalogue.
ALTER TABLE {schema}.company_prospect
    ALTER COLUMN salutation SET STATISTICS 0, ALTER COLUMN first_name SET STATISTICS 0, ALTER COLUMN last_name SET STATISTICS 0,
    ALTER COLUMN prospect_name_sort SET STATISTICS 0, ALTER COLUMN email SET STATISTICS 0, ALTER COLUMN email_key SET STATISTICS 0,
    ALTER COLUMN job_title_link SET STATISTICS 0, ALTER COLUMN prospect_address SET STATISTICS 0,
    ALTER COLUMN prospect_city SET STATISTICS 0, ALTER COLUMN prospect_state SET STATISTICS 0,
    ALTER COLUMN prospect_zip_code SET STATISTICS 0, ALTER COLUMN prospect_phone SET STATISTICS 0,
    ALTER COLUMN prospect_mobile_phone SET STATISTICS 0, ALTER COLUMN prospect_external_refs SET STATISTICS 0,
    ALTER COLUMN prospect_attributes SET STATISTICS 0, ALTER COLUMN hint_name SET STATISTICS 0,
    ALTER COLUMN hint_country SET STATISTICS 0, ALTER COLUMN hint_host SET STATISTICS 0;

-- Row-level security keeps % from using an index, so what looks like a company is looked for by functions of the owner's, which see
-- every row and add the tenant themselves (decision 15).
CREATE POLICY look_for_likes ON {schema}.companies FOR SELECT TO prospectus_owner USING (true);

-- Has the server know the setting that the function below makes.
SELECT extensions.show_limit();

-- $1 the tenant, $2 a name as names are compared, $3 its country or null, $4 the company itself or null, $5 most companies. Whoever
-- may call it works for all tenants. Names without trigrams (in scripts that the server's locale has no letters of) are found if they are the same.
CREATE FUNCTION {schema}.companies_like(tenant uuid, name_key text, country text, except_company_id uuid, companies_max integer)
RETURNS TABLE (company_id uuid, name_similarity real, same_country boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' SET pg_trgm.similarity_threshold = 0.5 AS $$
    SELECT f.company_id, max(f.name_similarity), bool_or(f.country = $3)
    FROM (
        (SELECT c.company_id, c.country, 1::real AS name_similarity
         FROM {schema}.companies AS c
         WHERE c.tenant_id = $1 AND c.name_key = $2 AND c.deleted_at IS NULL AND c.merged_into IS NULL
         ORDER BY c.company_id LIMIT $5 + 1)
        UNION ALL
        (SELECT c.company_id, c.country, extensions.similarity(c.name_key, $2)
         FROM {schema}.companies AS c
         WHERE c.tenant_id = $1 AND c.name_key OPERATOR(extensions.%) $2 AND c.deleted_at IS NULL AND c.merged_into IS NULL
         ORDER BY extensions.similarity(c.name_key, $2) DESC, c.company_id LIMIT $5 + 1)
    ) AS f
    WHERE f.company_id IS DISTINCT FROM $4
    GROUP BY f.company_id
    ORDER BY 2 DESC, 3 DESC NULLS LAST, 1
    LIMIT $5
$$;
REVOKE ALL ON FUNCTION {schema}.companies_like FROM PUBLIC;
GRANT EXECUTE ON FUNCTION {schema}.companies_like TO prospectus_projector;
COMMENT ON FUNCTION {schema}.companies_like IS 'Live companies of a tenant whose names are like a name, the most similar first: how similar, and whether the country is the same (null where one is not known)';

-- The same for a request, whose tenant is the transaction's.
CREATE FUNCTION {schema}.own_companies_like(name_key text, country text, except_company_id uuid, companies_max integer)
RETURNS TABLE (company_id uuid, name_similarity real, same_country boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT f.company_id, f.name_similarity, f.same_country
    FROM {schema}.companies_like(access.request_tenant(), $1, $2, $3, $4) AS f
$$;
REVOKE ALL ON FUNCTION {schema}.own_companies_like FROM PUBLIC;
GRANT EXECUTE ON FUNCTION {schema}.own_companies_like TO prospectus_query;
COMMENT ON FUNCTION {schema}.own_companies_like IS 'companies_like for the tenant that the query role serves in this transaction';

-- $1 tenant, $2 company, $3 most companies of each sort of evidence
CREATE FUNCTION {schema}.companies_with_the_same(tenant uuid, wanted_company_id uuid, companies_max integer)
RETURNS TABLE (company_id uuid, evidence text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT e.company_id, e.evidence
    FROM {schema}.companies AS own
    CROSS JOIN LATERAL (
        (SELECT c.company_id, 'phone' AS evidence FROM {schema}.companies AS c
         WHERE c.tenant_id = $1 AND c.phone = own.phone AND c.deleted_at IS NULL AND c.merged_into IS NULL
         ORDER BY c.company_id LIMIT $3 + 1)
        UNION ALL
        (SELECT c.company_id, 'email_address' FROM {schema}.companies AS c
         WHERE c.tenant_id = $1 AND lower(c.email_address) = lower(own.email_address) AND c.deleted_at IS NULL AND c.merged_into IS NULL
         ORDER BY c.company_id LIMIT $3 + 1)
        UNION ALL
        (SELECT c.company_id, 'domain_label' FROM {schema}.companies AS c
         WHERE c.tenant_id = $1 AND split_part(c.domain, '.', 1) = split_part(own.domain, '.', 1)
           AND c.deleted_at IS NULL AND c.merged_into IS NULL
         ORDER BY c.company_id LIMIT $3 + 1)
    ) AS e
    WHERE own.tenant_id = $1 AND own.company_id = $2 AND e.company_id <> $2
$$;
REVOKE ALL ON FUNCTION {schema}.companies_with_the_same FROM PUBLIC;
COMMENT ON FUNCTION {schema}.companies_with_the_same IS 'Live companies of a tenant that have a company''s phone, e-mail address, or the first label of its domain (acme of acme.com)';

-- $1 company of the request's tenant, $2 most companies of each sort of evidence
CREATE FUNCTION {schema}.duplicate_candidates(wanted_company_id uuid, companies_max integer)
RETURNS TABLE (company_id uuid, name text, domain text, country text, evidence text, name_similarity real, same_country boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT c.company_id, c.name, c.domain, c.country, e.evidence, e.name_similarity, e.same_country
    FROM (
        SELECT f.company_id, 'name' AS evidence, f.name_similarity, f.same_country
        FROM {schema}.companies AS own
        CROSS JOIN LATERAL {schema}.companies_like(own.tenant_id, own.name_key, own.country, own.company_id, $2) AS f
        WHERE own.tenant_id = access.request_tenant() AND own.company_id = $1
        UNION ALL
        SELECT f.company_id, f.evidence, NULL, NULL
        FROM {schema}.companies_with_the_same(access.request_tenant(), $1, $2) AS f
    ) AS e
    JOIN {schema}.companies AS c ON c.tenant_id = access.request_tenant() AND c.company_id = e.company_id
$$;
REVOKE ALL ON FUNCTION {schema}.duplicate_candidates FROM PUBLIC;
GRANT EXECUTE ON FUNCTION {schema}.duplicate_candidates TO prospectus_query;
COMMENT ON FUNCTION {schema}.duplicate_candidates IS 'What speaks for a company being the same as another one of the tenant that the query role serves in this transaction, a row for each sort of evidence';

-- $1 the first label of a domain, $2 most companies
CREATE FUNCTION {schema}.own_companies_of_label(label text, companies_max integer) RETURNS TABLE (company_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT c.company_id FROM {schema}.companies AS c
    WHERE c.tenant_id = access.request_tenant() AND split_part(c.domain, '.', 1) = $1
      AND c.deleted_at IS NULL AND c.merged_into IS NULL AND c.domain IS NOT NULL
    ORDER BY c.company_id LIMIT $2
$$;
REVOKE ALL ON FUNCTION {schema}.own_companies_of_label FROM PUBLIC;
GRANT EXECUTE ON FUNCTION {schema}.own_companies_of_label TO prospectus_query;
COMMENT ON FUNCTION {schema}.own_companies_of_label IS 'Live companies whose domain begins with a label (acme of acme.com), of the tenant that the query role serves in this transaction';

-- The tables of one generation of the projection company_prospect, in the schema {schema} (read_1, read_2, ...).
-- Run by the migrations' runner, which puts the schema's name in, and by rebuilds. Without keys and indexes, so that rows are loaded
-- fast, and without walls, which COPY does not go through: nobody but the builder sees them. Lists are read along (tenant_id, sort key, id), so every index
-- begins with the tenant, and text is compared byte by byte.
CREATE SCHEMA {schema};
COMMENT ON SCHEMA {schema} IS 'One generation of the projection company_prospect';

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
    primary_id uuid NOT NULL CHECK (primary_id <> company_id)
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

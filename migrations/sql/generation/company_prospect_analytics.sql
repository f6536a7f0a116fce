-- What is counted of one generation of the projection company_prospect (decision 0012): materialized views, which belong to the generation,
-- are made filled while its tables are empty, and are only ever refreshed CONCURRENTLY. They have no row-level security, so nobody who
-- serves requests may read them; the functions at the end add the tenant themselves. What is none is '', for a unique index with nulls
-- would have every such row written anew at each refresh.
CREATE FUNCTION {schema}.size_band(employee_count bigint, min_employee_size bigint, max_employee_size bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce((ARRAY['0-10', '11-50', '51-200', '201-500', '501-1000', '1001-5000', '5001-10000', '10001+'])
        [1 + width_bucket(coalesce($1, $2, $3), ARRAY[11, 51, 201, 501, 1001, 5001, 10001]::bigint[])], '')
$$;
COMMENT ON FUNCTION {schema}.size_band IS 'The band of a company''s employees, by their number, else by the lower, else by the upper bound of its size; empty where none is known';

CREATE FUNCTION {schema}.revenue_band(revenue bigint, revenue_currency text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(coalesce($2, 'USD') || ' ' || (ARRAY['under 1M', '1M-10M', '10M-50M', '50M-100M', '100M-500M', '500M-1B', '1B+'])
        [1 + width_bucket($1, ARRAY[1000000, 10000000, 50000000, 100000000, 500000000, 1000000000]::bigint[])], '')
$$;
COMMENT ON FUNCTION {schema}.revenue_band IS 'The band of a company''s revenue with its currency, for nothing is converted; empty where none is known';

REVOKE ALL ON FUNCTION {schema}.size_band, {schema}.revenue_band FROM PUBLIC;

CREATE MATERIALIZED VIEW {schema}.stats_as_of AS
SELECT c.generation, c.position, c.epoch, now() AS made_at
FROM read.checkpoints AS c
WHERE c.projection = 'company_prospect' AND c.generation = {generation};
CREATE UNIQUE INDEX stats_as_of_key ON {schema}.stats_as_of (generation);
COMMENT ON MATERIALIZED VIEW {schema}.stats_as_of IS 'What the views beside it include; refreshed with them in one snapshot, so it is exactly so';
COMMENT ON COLUMN {schema}.stats_as_of.generation IS 'This generation';
COMMENT ON COLUMN {schema}.stats_as_of.position IS 'Every event up to here is counted, and none after it';
COMMENT ON COLUMN {schema}.stats_as_of.epoch IS 'The epoch of that position';
COMMENT ON COLUMN {schema}.stats_as_of.made_at IS 'When';

CREATE MATERIALIZED VIEW {schema}.company_stats AS
WITH company AS (
    SELECT c.tenant_id, coalesce(c.country, '') AS country, coalesce(c.industry, '') AS industry, coalesce(c.state, '') AS state,
           coalesce(c.company_type, '') AS company_type,
           {schema}.size_band(c.employee_count, c.min_employee_size, c.max_employee_size) AS size_band,
           {schema}.revenue_band(c.revenue, c.revenue_currency) AS revenue_band,
           nullif(c.external_refs, '[]') AS external_refs, c.domain, c.name, c.legal_name, c.founding_date, c.short_description,
           c.address, c.city, c.zip_code, c.phone, c.mobile_phone, c.email_address, c.logo_url, nullif(c.social_media, '[]') AS social_media,
           p.company_id AS with_prospect
    FROM {schema}.companies AS c
    LEFT JOIN (
        SELECT DISTINCT r.tenant_id, coalesce(m.primary_id, r.assigned_company_id) AS company_id
        FROM {schema}.company_prospect AS r
        LEFT JOIN {schema}.merged_companies AS m ON m.tenant_id = r.tenant_id AND m.company_id = r.assigned_company_id
        WHERE r.prospect_id IS NOT NULL AND r.prospect_deleted_at IS NULL AND r.assigned_company_id IS NOT NULL
    ) AS p ON p.tenant_id = c.tenant_id AND p.company_id = c.company_id
    WHERE c.deleted_at IS NULL AND c.merged_into IS NULL
), counted AS (
    SELECT g.tenant_id, g.country, g.industry, f.measure, f.value, f.records
    FROM (
        SELECT c.tenant_id, c.country, c.industry, count(*) AS total, count(c.domain) AS domain, count(c.name) AS name,
               count(c.legal_name) AS legal_name, count(nullif(c.company_type, '')) AS company_type, count(nullif(c.industry, '')) AS in_industry,
               count(c.founding_date) AS founding_date, count(c.short_description) AS short_description,
               count(nullif(c.size_band, '')) AS size, count(nullif(c.revenue_band, '')) AS revenue, count(c.address) AS address,
               count(c.city) AS city, count(nullif(c.state, '')) AS state, count(nullif(c.country, '')) AS in_country,
               count(c.zip_code) AS zip_code, count(coalesce(c.phone, c.mobile_phone)) AS phone, count(c.email_address) AS email_address,
               count(c.logo_url) AS logo_url, count(c.social_media) AS social_media, count(c.external_refs) AS external_refs,
               count(c.with_prospect) AS prospects
        FROM company AS c GROUP BY c.tenant_id, c.country, c.industry
    ) AS g
    CROSS JOIN LATERAL (VALUES
        ('total', '', g.total), ('filled', 'domain', g.domain), ('filled', 'name', g.name), ('filled', 'legal_name', g.legal_name),
        ('filled', 'company_type', g.company_type), ('filled', 'industry', g.in_industry), ('filled', 'founding_date', g.founding_date),
        ('filled', 'short_description', g.short_description), ('filled', 'size', g.size), ('filled', 'revenue', g.revenue),
        ('filled', 'address', g.address), ('filled', 'city', g.city), ('filled', 'state', g.state), ('filled', 'country', g.in_country),
        ('filled', 'zip_code', g.zip_code), ('filled', 'phone', g.phone), ('filled', 'email_address', g.email_address),
        ('filled', 'logo_url', g.logo_url), ('filled', 'social_media', g.social_media), ('filled', 'external_refs', g.external_refs),
        ('filled', 'prospects', g.prospects)
    ) AS f (measure, value, records)
    WHERE f.records > 0
    UNION ALL
    SELECT c.tenant_id, c.country, c.industry,
           CASE grouping(c.state, c.company_type, c.size_band, c.revenue_band)
               WHEN 7 THEN 'state' WHEN 11 THEN 'company_type' WHEN 13 THEN 'size_band' ELSE 'revenue_band' END,
           coalesce(c.state, c.company_type, c.size_band, c.revenue_band), count(*)
    FROM company AS c
    GROUP BY c.tenant_id, c.country, c.industry, GROUPING SETS ((c.state), (c.company_type), (c.size_band), (c.revenue_band))
    UNION ALL
    SELECT c.tenant_id, c.country, c.industry, 'source', s.source, count(*)
    FROM company AS c
    CROSS JOIN LATERAL (SELECT DISTINCT e.ref ->> 'source' AS source FROM jsonb_array_elements(c.external_refs) AS e (ref)) AS s
    WHERE c.external_refs IS NOT NULL
    GROUP BY c.tenant_id, c.country, c.industry, s.source
    UNION ALL
    SELECT c.tenant_id, c.country, c.industry, 'source', '', count(*)
    FROM company AS c WHERE c.external_refs IS NULL
    GROUP BY c.tenant_id, c.country, c.industry
)
SELECT n.tenant_id, n.measure COLLATE "C" AS measure, n.value COLLATE "C" AS value, n.country COLLATE "C" AS country,
       n.industry COLLATE "C" AS industry, n.records
FROM counted AS n;
CREATE UNIQUE INDEX company_stats_key ON {schema}.company_stats (tenant_id, measure, value, country, industry);
COMMENT ON MATERIALIZED VIEW {schema}.company_stats IS 'How many live companies there are: of each country and industry, by what else is known of them';
COMMENT ON COLUMN {schema}.company_stats.tenant_id IS 'Whose companies';
COMMENT ON COLUMN {schema}.company_stats.measure IS 'total; state, company_type, size_band, revenue_band or source: value is one of them; filled: value is a field that is known';
COMMENT ON COLUMN {schema}.company_stats.value IS 'What they have in common; empty: that nothing is known';
COMMENT ON COLUMN {schema}.company_stats.country IS 'Their country, or empty';
COMMENT ON COLUMN {schema}.company_stats.industry IS 'Their industry, or empty';
COMMENT ON COLUMN {schema}.company_stats.records IS 'How many; a company of two sources counts for both';

-- Joined anew rather than read from the row's company columns, which a change of a company reaches later (decision 12): so the position is
-- exact. Of personal columns only values that several living persons share are told; a name for one person is no number.
CREATE MATERIALIZED VIEW {schema}.prospect_stats AS
WITH prospect AS (
    SELECT p.tenant_id, coalesce(p.prospect_country, '') AS country, coalesce(c.industry, '') AS industry,
           coalesce(p.prospect_state, '') AS state, coalesce(p.job_title_level, '') AS job_level, coalesce(p.department, '') AS department,
           {schema}.size_band(c.employee_count, c.min_employee_size, c.max_employee_size) AS size_band,
           {schema}.revenue_band(c.revenue, c.revenue_currency) AS revenue_band,
           nullif(p.prospect_external_refs, '[]') AS external_refs, c.company_id,
           p.first_name IS NOT NULL AS has_first_name, p.last_name IS NOT NULL AS has_last_name, p.email IS NOT NULL AS has_email,
           coalesce(p.prospect_phone, p.prospect_mobile_phone) IS NOT NULL AS has_phone, p.prospect_mobile_phone IS NOT NULL AS has_mobile_phone,
           p.job_title IS NOT NULL AS has_job_title, p.job_title_link IS NOT NULL AS has_job_title_link,
           p.prospect_address IS NOT NULL AS has_address, p.prospect_city IS NOT NULL AS has_city, p.prospect_zip_code IS NOT NULL AS has_zip_code
    FROM {schema}.company_prospect AS p
    LEFT JOIN {schema}.merged_companies AS m ON m.tenant_id = p.tenant_id AND m.company_id = p.assigned_company_id
    LEFT JOIN {schema}.companies AS c ON c.tenant_id = p.tenant_id AND c.company_id = coalesce(m.primary_id, p.assigned_company_id)
        AND c.deleted_at IS NULL AND c.merged_into IS NULL
    WHERE p.prospect_id IS NOT NULL AND p.prospect_deleted_at IS NULL
), counted AS (
    SELECT g.tenant_id, g.country, g.industry, f.measure, f.value, f.records
    FROM (
        SELECT p.tenant_id, p.country, p.industry, count(*) AS total, count(p.company_id) AS company,
               count(*) FILTER (WHERE p.has_first_name) AS first_name, count(*) FILTER (WHERE p.has_last_name) AS last_name,
               count(*) FILTER (WHERE p.has_email) AS email, count(*) FILTER (WHERE p.has_phone) AS phone,
               count(*) FILTER (WHERE p.has_mobile_phone) AS mobile_phone, count(*) FILTER (WHERE p.has_job_title) AS job_title,
               count(*) FILTER (WHERE p.has_job_title_link) AS job_title_link, count(*) FILTER (WHERE p.has_address) AS address,
               count(*) FILTER (WHERE p.has_city) AS city, count(*) FILTER (WHERE p.has_zip_code) AS zip_code,
               count(nullif(p.job_level, '')) AS job_level, count(nullif(p.department, '')) AS department,
               count(nullif(p.state, '')) AS state, count(nullif(p.country, '')) AS in_country, count(p.external_refs) AS external_refs
        FROM prospect AS p GROUP BY p.tenant_id, p.country, p.industry
    ) AS g
    CROSS JOIN LATERAL (VALUES
        ('total', '', g.total), ('filled', 'company', g.company), ('filled', 'first_name', g.first_name), ('filled', 'last_name', g.last_name),
        ('filled', 'email', g.email), ('filled', 'phone', g.phone), ('filled', 'mobile_phone', g.mobile_phone),
        ('filled', 'job_title', g.job_title), ('filled', 'job_title_level', g.job_level), ('filled', 'department', g.department),
        ('filled', 'job_title_link', g.job_title_link), ('filled', 'address', g.address), ('filled', 'city', g.city),
        ('filled', 'state', g.state), ('filled', 'country', g.in_country), ('filled', 'zip_code', g.zip_code),
        ('filled', 'external_refs', g.external_refs)
    ) AS f (measure, value, records)
    WHERE f.records > 0
    UNION ALL
    SELECT p.tenant_id, p.country, p.industry,
           CASE grouping(p.state, p.job_level, p.department, p.size_band, p.revenue_band)
               WHEN 15 THEN 'state' WHEN 23 THEN 'job_level' WHEN 27 THEN 'department' WHEN 29 THEN 'size_band' ELSE 'revenue_band' END,
           coalesce(p.state, p.job_level, p.department, p.size_band, p.revenue_band), count(*)
    FROM prospect AS p
    GROUP BY p.tenant_id, p.country, p.industry,
             GROUPING SETS ((p.state), (p.job_level), (p.department), (p.size_band), (p.revenue_band))
    UNION ALL
    SELECT p.tenant_id, p.country, p.industry, 'source', s.source, count(*)
    FROM prospect AS p
    CROSS JOIN LATERAL (SELECT DISTINCT e.ref ->> 'source' AS source FROM jsonb_array_elements(p.external_refs) AS e (ref)) AS s
    WHERE p.external_refs IS NOT NULL
    GROUP BY p.tenant_id, p.country, p.industry, s.source
    UNION ALL
    SELECT p.tenant_id, p.country, p.industry, 'source', '', count(*)
    FROM prospect AS p WHERE p.external_refs IS NULL
    GROUP BY p.tenant_id, p.country, p.industry
), shared AS (
    SELECT n.*, n.measure IN ('state', 'source') AND n.value <> ''
               AND sum(n.records) OVER (PARTITION BY n.tenant_id, n.measure, n.value) < 5 AS rare
    FROM counted AS n
)
SELECT n.tenant_id, (CASE WHEN n.rare THEN 'rare_' || n.measure ELSE n.measure END) COLLATE "C" AS measure,
       (CASE WHEN n.rare THEN '' ELSE n.value END) COLLATE "C" AS value, n.country COLLATE "C" AS country, n.industry COLLATE "C" AS industry,
       sum(n.records)::bigint AS records
FROM shared AS n
GROUP BY 1, 2, 3, 4, 5;
CREATE UNIQUE INDEX prospect_stats_key ON {schema}.prospect_stats (tenant_id, measure, value, country, industry);
-- A value that few share by now is not to stay in the catalogue.
ALTER MATERIALIZED VIEW {schema}.prospect_stats ALTER COLUMN value SET STATISTICS 0;
COMMENT ON MATERIALIZED VIEW {schema}.prospect_stats IS 'How many live prospects there are: of each country, and industry of their company, by what else is known of them. No value of a personal column that fewer than five persons of the tenant share';
COMMENT ON COLUMN {schema}.prospect_stats.tenant_id IS 'Whose prospects';
COMMENT ON COLUMN {schema}.prospect_stats.measure IS 'total; state, job_level, department, source, size_band or revenue_band (of the company): value is one of them; rare_state, rare_source: one that fewer than five share; filled: value is a field that is known';
COMMENT ON COLUMN {schema}.prospect_stats.value IS 'What they have in common; empty: that nothing is known, or that it is rare';
COMMENT ON COLUMN {schema}.prospect_stats.country IS 'Their country, or empty';
COMMENT ON COLUMN {schema}.prospect_stats.industry IS 'Their company''s industry, or empty';
COMMENT ON COLUMN {schema}.prospect_stats.records IS 'How many; a prospect of two sources counts for both';

CREATE MATERIALIZED VIEW {schema}.growth AS
SELECT r.tenant_id, r.record, r.day, r.country COLLATE "C" AS country, r.industry COLLATE "C" AS industry,
       count(*) AS created, count(*) FILTER (WHERE r.live) AS live
FROM (
    SELECT c.tenant_id, 'company' COLLATE "C" AS record, (c.created_at AT TIME ZONE 'UTC')::date AS day, coalesce(c.country, '') AS country,
           coalesce(c.industry, '') AS industry, c.deleted_at IS NULL AND c.merged_into IS NULL AS live
    FROM {schema}.companies AS c
    UNION ALL
    SELECT p.tenant_id, 'prospect', (p.prospect_created_at AT TIME ZONE 'UTC')::date, coalesce(p.prospect_country, ''),
           coalesce(c.industry, ''), p.prospect_deleted_at IS NULL
    FROM {schema}.company_prospect AS p
    LEFT JOIN {schema}.merged_companies AS m ON m.tenant_id = p.tenant_id AND m.company_id = p.assigned_company_id
    LEFT JOIN {schema}.companies AS c ON c.tenant_id = p.tenant_id AND c.company_id = coalesce(m.primary_id, p.assigned_company_id)
        AND c.deleted_at IS NULL AND c.merged_into IS NULL
    WHERE p.prospect_id IS NOT NULL
) AS r
GROUP BY 1, 2, 3, 4, 5;
CREATE UNIQUE INDEX growth_key ON {schema}.growth (tenant_id, record, day, country, industry);
COMMENT ON MATERIALIZED VIEW {schema}.growth IS 'How many records were made each day';
COMMENT ON COLUMN {schema}.growth.tenant_id IS 'Whose records';
COMMENT ON COLUMN {schema}.growth.record IS 'company or prospect';
COMMENT ON COLUMN {schema}.growth.day IS 'In UTC';
COMMENT ON COLUMN {schema}.growth.country IS 'Their country, or empty';
COMMENT ON COLUMN {schema}.growth.industry IS 'Their (company''s) industry, or empty';
COMMENT ON COLUMN {schema}.growth.created IS 'How many, those that were deleted or merged since included';
COMMENT ON COLUMN {schema}.growth.live IS 'How many of them are neither deleted nor merged';

-- The four are refreshed together, in the one snapshot of a transaction at REPEATABLE READ. Who does it owns nothing: REFRESH wants the
-- owner, so this is the owner's. The lock is one for all generations, held until the transaction ends, and never waited for. All of the
-- tables are read: on tables that nobody has counted yet, a nested loop would read one of them again for every row of the other.
CREATE FUNCTION {schema}.refresh_stats() RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET work_mem = '64MB' SET jit = off
    SET enable_nestloop = off AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('repeatable read', 'serializable') THEN
        RAISE EXCEPTION 'the views must be refreshed in one snapshot: BEGIN ISOLATION LEVEL REPEATABLE READ' USING ERRCODE = '25001';
    END IF;
    IF NOT pg_try_advisory_xact_lock(5787213827046133845) THEN
        RETURN false;
    END IF;
    -- Changed by every refresh, so first: one that began its snapshot before another had ended fails here.
    REFRESH MATERIALIZED VIEW CONCURRENTLY {schema}.stats_as_of;
    REFRESH MATERIALIZED VIEW CONCURRENTLY {schema}.company_stats;
    REFRESH MATERIALIZED VIEW CONCURRENTLY {schema}.prospect_stats;
    REFRESH MATERIALIZED VIEW CONCURRENTLY {schema}.growth;
    RETURN true;
END
$$;
REVOKE ALL ON FUNCTION {schema}.refresh_stats FROM PUBLIC;
GRANT EXECUTE ON FUNCTION {schema}.refresh_stats TO prospectus_projector;
COMMENT ON FUNCTION {schema}.refresh_stats IS 'Refreshes what is counted, in the transaction''s one snapshot; false where another refresh is under way';
-- Not personal, and of no tenant.
GRANT SELECT ON {schema}.stats_as_of TO prospectus_projector, prospectus_verifier, prospectus_operator;

CREATE FUNCTION {schema}.own_stats_as_of() RETURNS TABLE ("position" bigint, epoch text, made_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT s.position, s.epoch, s.made_at FROM {schema}.stats_as_of AS s
$$;
COMMENT ON FUNCTION {schema}.own_stats_as_of IS 'What the numbers of this generation include, and since when they are known';

-- $1 countries, $2 industries, either null for all
CREATE FUNCTION {schema}.own_stats(countries text[], industries text[])
RETURNS TABLE (record text, measure text, value text, country text, industry text, records bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT 'company', s.measure, s.value, s.country, s.industry, s.records FROM {schema}.company_stats AS s
    WHERE s.tenant_id = access.request_tenant() AND ($1 IS NULL OR s.country = ANY ($1)) AND ($2 IS NULL OR s.industry = ANY ($2))
    UNION ALL
    SELECT 'prospect', s.measure, s.value, s.country, s.industry, s.records FROM {schema}.prospect_stats AS s
    WHERE s.tenant_id = access.request_tenant() AND ($1 IS NULL OR s.country = ANY ($1)) AND ($2 IS NULL OR s.industry = ANY ($2))
$$;
COMMENT ON FUNCTION {schema}.own_stats IS 'Rows of company_stats and prospect_stats of the tenant that the query role serves in this transaction';

-- $1 countries, $2 industries, either null for all; $3 the first day, $4 the last
CREATE FUNCTION {schema}.own_growth(countries text[], industries text[], first_day date, last_day date)
RETURNS TABLE (record text, day date, created bigint, live bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT s.record, s.day, sum(s.created)::bigint, sum(s.live)::bigint FROM {schema}.growth AS s
    WHERE s.tenant_id = access.request_tenant() AND s.day BETWEEN $3 AND $4
      AND ($1 IS NULL OR s.country = ANY ($1)) AND ($2 IS NULL OR s.industry = ANY ($2))
    GROUP BY s.record, s.day
$$;
COMMENT ON FUNCTION {schema}.own_growth IS 'Rows of growth of the tenant that the query role serves in this transaction';

REVOKE ALL ON FUNCTION {schema}.own_stats_as_of, {schema}.own_stats, {schema}.own_growth FROM PUBLIC;
GRANT EXECUTE ON FUNCTION {schema}.own_stats_as_of, {schema}.own_stats, {schema}.own_growth TO prospectus_query;

-- Who may see what in one generation of the projection company_prospect, and the functions that look into it. Run after its rows are
-- loaded: before, only the builder of the generation sees them.
GRANT USAGE ON SCHEMA {schema} TO prospectus_projector, prospectus_query, prospectus_verifier, prospectus_operator, prospectus_people;
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

-- Row-level security keeps % from using an index, so what looks like a company is looked for by functions of the owner's, which see
-- every row and add the tenant themselves (decision 15).

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

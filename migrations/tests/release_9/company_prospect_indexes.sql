-- The indexes of one generation of the projection company_prospect, apart from its tables so that a rebuild can load first.
-- Requirement 003's, with the tenant first; each ends with the id, so that a filtered list comes out in order and a keyset
-- cursor can go on from any row. The values themselves may be null: a list reads the rows that have one, then those without.
CREATE INDEX companies_name ON {schema}.companies (tenant_id, name_sort, company_id);
CREATE INDEX companies_domain ON {schema}.companies (tenant_id, domain, company_id);
CREATE INDEX companies_revenue ON {schema}.companies (tenant_id, revenue, company_id);
CREATE INDEX companies_employee_count ON {schema}.companies (tenant_id, employee_count, company_id);
CREATE INDEX companies_created_at ON {schema}.companies (tenant_id, created_at, company_id);
CREATE INDEX companies_updated_at ON {schema}.companies (tenant_id, updated_at, company_id);
CREATE INDEX companies_industry ON {schema}.companies (tenant_id, industry, company_id) WHERE industry IS NOT NULL;
CREATE INDEX companies_min_employee_size ON {schema}.companies (tenant_id, min_employee_size, company_id) WHERE min_employee_size IS NOT NULL;
CREATE INDEX companies_max_employee_size ON {schema}.companies (tenant_id, max_employee_size, company_id) WHERE max_employee_size IS NOT NULL;
CREATE INDEX companies_country ON {schema}.companies (tenant_id, country, company_id) WHERE country IS NOT NULL;
CREATE INDEX companies_city ON {schema}.companies (tenant_id, city, company_id) WHERE city IS NOT NULL;
CREATE INDEX companies_state ON {schema}.companies (tenant_id, state, company_id) WHERE state IS NOT NULL;
-- What duplicates are found by, in functions that add the tenant themselves. btree_gin lets the trigrams' index begin with it.
CREATE INDEX companies_name_key ON {schema}.companies (tenant_id, name_key, company_id) WHERE deleted_at IS NULL AND merged_into IS NULL;
CREATE INDEX companies_name_trigrams ON {schema}.companies USING gin (tenant_id, name_key extensions.gin_trgm_ops) WHERE deleted_at IS NULL AND merged_into IS NULL;
CREATE INDEX companies_phone ON {schema}.companies (tenant_id, phone, company_id) WHERE deleted_at IS NULL AND merged_into IS NULL AND phone IS NOT NULL;
CREATE INDEX companies_email_address ON {schema}.companies (tenant_id, lower(email_address), company_id) WHERE deleted_at IS NULL AND merged_into IS NULL AND email_address IS NOT NULL;
CREATE INDEX companies_domain_label ON {schema}.companies (tenant_id, split_part(domain, '.', 1), company_id) WHERE deleted_at IS NULL AND merged_into IS NULL AND domain IS NOT NULL;
-- What is in review; the list names the same conditions.
CREATE INDEX companies_review ON {schema}.companies (tenant_id, company_id) WHERE looks_like_company_id IS NOT NULL;
CREATE INDEX merged_companies_primary ON {schema}.merged_companies (tenant_id, primary_id, company_id);

CREATE INDEX company_prospect_assigned ON {schema}.company_prospect (tenant_id, assigned_company_id, row_id) WHERE assigned_company_id IS NOT NULL;
CREATE INDEX company_prospect_company ON {schema}.company_prospect (tenant_id, company_id, row_id) WHERE company_id IS NOT NULL;
CREATE INDEX company_prospect_created_at ON {schema}.company_prospect (tenant_id, created_at, row_id);
CREATE INDEX company_prospect_updated_at ON {schema}.company_prospect (tenant_id, updated_at, row_id);
CREATE INDEX company_prospect_prospect_updated_at ON {schema}.company_prospect (tenant_id, prospect_updated_at, row_id) WHERE prospect_id IS NOT NULL;
CREATE INDEX company_prospect_prospect_name ON {schema}.company_prospect (tenant_id, prospect_name_sort, row_id) WHERE prospect_id IS NOT NULL;
CREATE INDEX company_prospect_company_name ON {schema}.company_prospect (tenant_id, company_name_sort, row_id);
CREATE INDEX company_prospect_domain ON {schema}.company_prospect (tenant_id, domain, row_id);
CREATE INDEX company_prospect_revenue ON {schema}.company_prospect (tenant_id, revenue, row_id);
CREATE INDEX company_prospect_employee_count ON {schema}.company_prospect (tenant_id, employee_count, row_id);
CREATE INDEX company_prospect_industry ON {schema}.company_prospect (tenant_id, industry, row_id) WHERE industry IS NOT NULL;
CREATE INDEX company_prospect_email ON {schema}.company_prospect (tenant_id, email_key, row_id) WHERE email_key IS NOT NULL;
CREATE INDEX company_prospect_job_title ON {schema}.company_prospect (tenant_id, job_title, row_id) WHERE job_title IS NOT NULL;
CREATE INDEX company_prospect_job_title_level ON {schema}.company_prospect (tenant_id, job_title_level, row_id) WHERE job_title_level IS NOT NULL;
CREATE INDEX company_prospect_department ON {schema}.company_prospect (tenant_id, department, row_id) WHERE department IS NOT NULL;
CREATE INDEX company_prospect_country ON {schema}.company_prospect (tenant_id, prospect_country, row_id) WHERE prospect_country IS NOT NULL;
CREATE INDEX company_prospect_city ON {schema}.company_prospect (tenant_id, prospect_city, row_id) WHERE prospect_city IS NOT NULL;
CREATE INDEX company_prospect_state ON {schema}.company_prospect (tenant_id, prospect_state, row_id) WHERE prospect_state IS NOT NULL;
CREATE INDEX company_prospect_review ON {schema}.company_prospect
    (tenant_id, (CASE WHEN review IS NULL THEN 'company_deleted' ELSE review END), row_id)
    WHERE prospect_id IS NOT NULL AND company_id IS NULL AND prospect_deleted_at IS NULL AND review IS DISTINCT FROM 'left_alone';

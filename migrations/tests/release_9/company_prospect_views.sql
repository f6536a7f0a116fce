-- The fixed names (read.companies, ...) over one generation of the projection company_prospect; run again when another goes live.
CREATE OR REPLACE VIEW read.companies WITH (security_invoker = true) AS
SELECT * FROM {schema}.companies;
COMMENT ON VIEW read.companies IS 'Companies, deleted ones included: the live generation';
CREATE OR REPLACE VIEW read.company_prospect WITH (security_invoker = true) AS
SELECT * FROM {schema}.company_prospect;
COMMENT ON VIEW read.company_prospect IS 'Prospects with their companies, deleted prospects included: the live generation';
CREATE OR REPLACE VIEW read.company_prospect_view WITH (security_invoker = true) AS
SELECT tenant_id, position, company_id, domain, company_name, industry, min_employee_size, max_employee_size, revenue,
       company_address, company_city, company_state, company_country, company_zip_code, company_phone, company_mobile_phone,
       prospect_id, salutation, first_name, last_name, email, job_title, job_title_level, department, job_title_link,
       prospect_address, prospect_city, prospect_state, prospect_country, prospect_zip_code, prospect_phone, prospect_mobile_phone,
       company_version, prospect_version, company_created_at, company_updated_at, prospect_created_at, prospect_updated_at,
       created_at, updated_at
FROM {schema}.company_prospect
WHERE prospect_deleted_at IS NULL;
COMMENT ON VIEW read.company_prospect_view IS 'Requirement 003''s view: a row per prospect with its company''s columns, and one per company without a prospect';
GRANT SELECT ON read.companies, read.company_prospect, read.company_prospect_view
    TO prospectus_query, prospectus_verifier, prospectus_people;

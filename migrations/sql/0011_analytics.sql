-- What is counted of a generation (sql/generation/company_prospect_analytics.sql) needs this beside it. May be run any number of times:
-- a database's own grants are not copied with it.
GRANT SELECT ON read.checkpoints TO prospectus_builder;

DO $$
BEGIN
    -- REFRESH ... CONCURRENTLY compares with a temporary table, which the views' owner must be allowed to make.
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO prospectus_builder', current_database());
END
$$;

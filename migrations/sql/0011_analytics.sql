-- What is counted of a generation (sql/generation/company_prospect_analytics.sql) needs this beside it. May be run any number of times:
-- a database's own grants are not copied with it.
GRANT SELECT ON read.checkpoints TO prospectus_builder;

DO $$
DECLARE
    existing record;
BEGIN
    -- REFRESH ... CONCURRENTLY compares with a temporary table, which the views' owner must be allowed to make.
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO prospectus_builder', current_database());
    -- Generations made by an earlier release. Apart from making the views, which takes long where there is much to count: a policy
    -- keeps readers out until its transaction ends.
    FOR existing IN
        SELECT format('read_%s.%s', g.generation, t.name)::regclass AS relation
        FROM read.generations AS g
        CROSS JOIN (VALUES ('merged_companies'), ('company_prospect')) AS t (name)
        WHERE g.projection = 'company_prospect'
    LOOP
        IF NOT EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = existing.relation AND p.polname = 'look_for_counts') THEN
            EXECUTE format('CREATE POLICY look_for_counts ON %s FOR SELECT TO prospectus_builder USING (true)', existing.relation);
        END IF;
    END LOOP;
END
$$;

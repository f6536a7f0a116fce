-- What names are compared with: trigrams, and the tenant in front of them in one index. Both come with the server's own contributed
-- extensions. They stand in a schema of their own; one that is there already is moved to it.
CREATE SCHEMA extensions AUTHORIZATION prospectus_owner;
COMMENT ON SCHEMA extensions IS 'Extensions of the server: pg_trgm, btree_gin';
CREATE EXTENSION IF NOT EXISTS pg_trgm;
ALTER EXTENSION pg_trgm SET SCHEMA extensions;
CREATE EXTENSION IF NOT EXISTS btree_gin;
ALTER EXTENSION btree_gin SET SCHEMA extensions;

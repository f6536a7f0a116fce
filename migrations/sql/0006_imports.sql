-- What an import's rows are kept in while it runs and for a while after: sealed under a key of the import, gone after seven days.
SET ROLE prospectus_owner;

CREATE TABLE log.import_files (
    tenant_id uuid NOT NULL,
    import_id uuid NOT NULL,
    wrapping_key_id text NOT NULL,
    wrapped_key bytea NOT NULL,
    head bytea,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, import_id)
);
CREATE INDEX import_files_created_at ON log.import_files (created_at);
COMMENT ON TABLE log.import_files IS 'One row per import whose bytes are kept: its key and what its records are; removed 7 days after it began';
COMMENT ON COLUMN log.import_files.tenant_id IS 'Whose import';
COMMENT ON COLUMN log.import_files.import_id IS 'Which import';
COMMENT ON COLUMN log.import_files.wrapping_key_id IS 'Which key-encryption key wraps its key';
COMMENT ON COLUMN log.import_files.wrapped_key IS 'The AES-256 key of its bytes, wrapped: once this row is gone, no copy of the bytes can be read';
COMMENT ON COLUMN log.import_files.head IS 'Sealed: the form of the records and the mapping; null until all bytes are there';
COMMENT ON COLUMN log.import_files.created_at IS 'When the bytes began to come in';

CREATE TABLE log.import_chunks (
    tenant_id uuid NOT NULL,
    import_id uuid NOT NULL,
    chunk integer NOT NULL CHECK (chunk >= 1),
    sealed bytea NOT NULL CHECK (octet_length(sealed) <= 1048576),
    PRIMARY KEY (tenant_id, import_id, chunk)
);
ALTER TABLE log.import_chunks ALTER COLUMN sealed SET STORAGE EXTERNAL;
COMMENT ON TABLE log.import_chunks IS 'The records of an import, some hundreds in a row, compressed and sealed';
COMMENT ON COLUMN log.import_chunks.tenant_id IS 'Whose import';
COMMENT ON COLUMN log.import_chunks.import_id IS 'Which import';
COMMENT ON COLUMN log.import_chunks.chunk IS '1, 2, 3, ...';
COMMENT ON COLUMN log.import_chunks.sealed IS 'Whole records in UTF-8 as they stood';

CREATE TABLE log.import_outcomes (
    tenant_id uuid NOT NULL,
    import_id uuid NOT NULL,
    part integer NOT NULL,
    sealed bytea NOT NULL,
    PRIMARY KEY (tenant_id, import_id, part)
);
ALTER TABLE log.import_outcomes ALTER COLUMN sealed SET STORAGE EXTERNAL;
COMMENT ON TABLE log.import_outcomes IS 'What became of the records of an import, some thousands in a row, compressed and sealed';
COMMENT ON COLUMN log.import_outcomes.tenant_id IS 'Whose import';
COMMENT ON COLUMN log.import_outcomes.import_id IS 'Which import';
COMMENT ON COLUMN log.import_outcomes.part IS 'The last chunk that it tells of; below zero: what taking the import back left';
COMMENT ON COLUMN log.import_outcomes.sealed IS 'A line of JSON a record';

-- What there is to do: an import holds this claim while it is not at its end.
CREATE INDEX claims_open_imports ON log.claims (tenant_id, aggregate_id) WHERE kind = 'import_open' AND NOT released;

ALTER TABLE log.import_files ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE log.import_chunks ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE log.import_outcomes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY write ON log.import_files TO prospectus_appender USING (true) WITH CHECK (true);
CREATE POLICY write ON log.import_chunks TO prospectus_appender USING (true) WITH CHECK (true);
CREATE POLICY write ON log.import_outcomes TO prospectus_appender USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON log.import_files TO prospectus_appender;
GRANT SELECT, INSERT, DELETE ON log.import_chunks TO prospectus_appender;
GRANT SELECT, INSERT, UPDATE, DELETE ON log.import_outcomes TO prospectus_appender;

RESET ROLE;

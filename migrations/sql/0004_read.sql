-- What every generation of every projection shares: which one is live, how far each is, and what is queued (decisions 11 to 14).
-- The tables of a generation stand in their own schema, made from sql/generation/*.sql.
SET ROLE prospectus_owner;

CREATE SCHEMA read;
COMMENT ON SCHEMA read IS 'Read tables under their fixed names, and the state of the projections';
GRANT USAGE ON SCHEMA read TO prospectus_projector, prospectus_query, prospectus_verifier, prospectus_operator, prospectus_people;

CREATE TABLE read.generations (
    projection text NOT NULL,
    generation integer NOT NULL CHECK (generation >= 1),
    code_version integer NOT NULL CHECK (code_version >= 1),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, generation)
);
COMMENT ON TABLE read.generations IS 'Every generation of a projection that has tables, in schema read_<generation>';
COMMENT ON COLUMN read.generations.projection IS 'company_prospect, ...';
COMMENT ON COLUMN read.generations.generation IS '1, 2, 3, ...';
COMMENT ON COLUMN read.generations.code_version IS 'Version of the projection''s code that builds it';
COMMENT ON COLUMN read.generations.created_at IS 'When its tables were made';

CREATE TABLE read.live (
    projection text PRIMARY KEY,
    generation integer NOT NULL,
    FOREIGN KEY (projection, generation) REFERENCES read.generations
);
COMMENT ON TABLE read.live IS 'The one row that names the live generation; the query service reads it in its own snapshot (decision 13)';
COMMENT ON COLUMN read.live.projection IS 'Which projection';
COMMENT ON COLUMN read.live.generation IS 'Its live generation';

CREATE TABLE read.checkpoint_steps (
    projection text NOT NULL,
    generation integer NOT NULL,
    step bigint NOT NULL CHECK (step >= 0),
    position bigint NOT NULL CHECK (position >= 0),
    epoch text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (projection, generation, step),
    FOREIGN KEY (projection, generation) REFERENCES read.generations
);
COMMENT ON TABLE read.checkpoint_steps IS 'A row inserted with the rows of each step: two projectors that take the same step collide, and nothing rots under a foreign snapshot (decision 11)';
COMMENT ON COLUMN read.checkpoint_steps.projection IS 'Which projection';
COMMENT ON COLUMN read.checkpoint_steps.generation IS 'Which generation of it';
COMMENT ON COLUMN read.checkpoint_steps.step IS 'One more than the step before: the fence';
COMMENT ON COLUMN read.checkpoint_steps.position IS 'Every event up to here is applied';
COMMENT ON COLUMN read.checkpoint_steps.epoch IS 'Name of the log''s epoch that the step was taken in';
COMMENT ON COLUMN read.checkpoint_steps.updated_at IS 'When';

CREATE TABLE read.fanout (
    projection text NOT NULL,
    generation integer NOT NULL,
    tenant_id uuid NOT NULL,
    company_id uuid NOT NULL,
    position bigint NOT NULL,
    next_position bigint CHECK (next_position > position),
    after_row_id uuid,
    PRIMARY KEY (projection, generation, tenant_id, company_id)
);
COMMENT ON TABLE read.fanout IS 'Companies whose change has not reached all of its prospects'' rows yet (decision 12)';
COMMENT ON COLUMN read.fanout.projection IS 'Which projection';
COMMENT ON COLUMN read.fanout.generation IS 'Which generation of it';
COMMENT ON COLUMN read.fanout.tenant_id IS 'Whose company';
COMMENT ON COLUMN read.fanout.company_id IS 'Rows with this assigned_company_id are behind';
COMMENT ON COLUMN read.fanout.position IS 'The change that is being carried out: complete below it';
COMMENT ON COLUMN read.fanout.next_position IS 'A later change that came meanwhile: another pass follows';
COMMENT ON COLUMN read.fanout.after_row_id IS 'Rows up to here are done in this pass';

ALTER TABLE read.fanout ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY project ON read.fanout TO prospectus_owner, prospectus_projector, prospectus_verifier USING (true) WITH CHECK (true);
CREATE POLICY request ON read.fanout FOR SELECT TO prospectus_query USING (tenant_id = access.request_tenant());
CREATE INDEX fanout_complete ON read.fanout (projection, generation, tenant_id, position);

GRANT SELECT ON read.generations, read.live, read.checkpoint_steps TO prospectus_projector, prospectus_query, prospectus_verifier, prospectus_operator, prospectus_people;
GRANT INSERT, UPDATE, DELETE ON read.generations, read.live TO prospectus_projector;
GRANT INSERT, DELETE ON read.checkpoint_steps TO prospectus_projector;
GRANT SELECT, INSERT, UPDATE, DELETE ON read.fanout TO prospectus_projector;
GRANT SELECT ON read.fanout TO prospectus_query, prospectus_verifier;

CREATE VIEW read.checkpoints AS
SELECT g.projection, g.generation, s.position, s.epoch, s.updated_at
FROM read.generations AS g
CROSS JOIN LATERAL (
    SELECT c.position, c.epoch, c.updated_at
    FROM read.checkpoint_steps AS c
    WHERE c.projection = g.projection AND c.generation = g.generation
    ORDER BY c.step DESC
    LIMIT 1
) AS s;
COMMENT ON VIEW read.checkpoints IS 'How far each generation of each projection is';
COMMENT ON COLUMN read.checkpoints.projection IS 'Which projection';
COMMENT ON COLUMN read.checkpoints.generation IS 'Which generation of it';
COMMENT ON COLUMN read.checkpoints.position IS 'Every event up to here is applied';
COMMENT ON COLUMN read.checkpoints.epoch IS 'Epoch of the log that the last step was taken in';
COMMENT ON COLUMN read.checkpoints.updated_at IS 'When the last step was taken';
GRANT SELECT ON read.checkpoints TO prospectus_projector, prospectus_query, prospectus_verifier, prospectus_operator, prospectus_people;

-- Who serves one tenant sees neither the queue nor the events of others, so a projection's whole progress comes from a function
-- that tells positions and times and nothing else.
CREATE FUNCTION read.progress()
RETURNS TABLE (projection text, generation integer, complete_position bigint, applied_position bigint, epoch text, waits_since timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT c.projection, c.generation, least(c.position, q.position - 1), c.position, c.epoch, e.recorded_at
    FROM read.checkpoints AS c
    CROSS JOIN LATERAL (
        SELECT min(f.position) AS position FROM read.fanout AS f
        WHERE f.projection = c.projection AND f.generation = c.generation
    ) AS q
    LEFT JOIN log.events AS e ON e.position = least(c.position, q.position - 1) + 1
$$;
REVOKE ALL ON FUNCTION read.progress FROM PUBLIC;
GRANT EXECUTE ON FUNCTION read.progress TO prospectus_query;
COMMENT ON FUNCTION read.progress IS 'For each generation: every event up to complete_position shows in all rows, every event up to applied_position is taken in, and the first event that does not show everywhere is of waits_since';

RESET ROLE;

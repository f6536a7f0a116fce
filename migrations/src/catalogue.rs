//! What a database consists of, as facts of its catalogue that can be compared with another's: the one that the files make.

use std::collections::BTreeMap;

use tokio_postgres::{Client, Error};

/// What the schema of the live generation is called in facts, whichever it is.
const LIVE_SCHEMA: &str = "read_live";

/// Facts of a database: an object or a part of one, and what is so about it.
pub type Facts = BTreeMap<String, String>;

/// Each gives names and values. `$1` are the schemas; objects of extensions are the extensions' own.
const QUESTIONS: &[&str] = &[
    "-- migrations::catalogue, schemas
     SELECT format('schema %I', n.nspname), format('owner %I', n.nspowner::regrole)
     FROM pg_namespace AS n WHERE n.nspname = ANY ($1)",
    "-- migrations::catalogue, extensions
     SELECT format('extension %I', e.extname), 'there' FROM pg_extension AS e",
    "-- migrations::catalogue, relations
     SELECT format('%s %I.%I', CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN
                'materialized view' WHEN 'S' THEN 'sequence' ELSE 'relation' END, n.nspname, c.relname),
            format('owner %s, row-level security %s%s%s%s', c.relowner::regrole,
                CASE WHEN c.relrowsecurity THEN 'on' ELSE 'off' END, CASE WHEN c.relforcerowsecurity THEN ' and forced' ELSE '' END,
                CASE c.relpersistence WHEN 'p' THEN '' ELSE ', not logged' END,
                coalesce(', options ' || array_to_string(c.reloptions, ', '), ''))
     FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
       AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')",
    "-- migrations::catalogue, columns
     SELECT format('column %I.%I.%I', n.nspname, c.relname, a.attname),
            format('%s%s%s%s%s%s', format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
                coalesce(CASE a.attgenerated WHEN 's' THEN ' GENERATED ALWAYS AS (' ELSE ' DEFAULT (' END
                    || pg_get_expr(d.adbin, d.adrelid) || ')', ''),
                CASE a.attidentity WHEN 'a' THEN ' IDENTITY ALWAYS' WHEN 'd' THEN ' IDENTITY BY DEFAULT' ELSE '' END,
                CASE WHEN a.attstorage <> t.typstorage THEN ' STORAGE ' || a.attstorage::text ELSE '' END,
                CASE WHEN a.attcollation <> t.typcollation THEN ' COLLATE ' || a.attcollation::regcollation::text ELSE '' END)
     FROM pg_attribute AS a
     JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace JOIN pg_type AS t ON t.oid = a.atttypid
     LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p', 'v', 'm') AND a.attnum > 0 AND NOT a.attisdropped",
    "-- migrations::catalogue, constraints
     SELECT format('constraint %s of %I.%I', quote_ident(k.conname), n.nspname, c.relname),
            pg_get_constraintdef(k.oid) || CASE WHEN k.convalidated THEN '' ELSE ' NOT VALID' END
     FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = ANY ($1) AND k.contype <> 'n'",
    "-- migrations::catalogue, indexes
     SELECT format('index %I.%I', n.nspname, x.relname),
            pg_get_indexdef(i.indexrelid) || CASE WHEN i.indisvalid AND i.indisready THEN '' ELSE ' (INVALID)' END
     FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid JOIN pg_namespace AS n ON n.oid = x.relnamespace
     WHERE n.nspname = ANY ($1)",
    "-- migrations::catalogue, policies
     SELECT format('policy %I of %I.%I', p.polname, n.nspname, c.relname),
            format('%s for %s to %s using (%s) with check (%s)', CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END,
                CASE p.polcmd WHEN 'r' THEN 'select' WHEN 'a' THEN 'insert' WHEN 'w' THEN 'update' WHEN 'd' THEN 'delete' ELSE 'all' END,
                (SELECT string_agg(CASE WHEN r.role = 0 THEN 'public' ELSE r.role::regrole::text END, ', '
                            ORDER BY CASE WHEN r.role = 0 THEN 'public' ELSE r.role::regrole::text END)
                 FROM unnest(p.polroles) AS r (role)),
                coalesce(pg_get_expr(p.polqual, p.polrelid), ''), coalesce(pg_get_expr(p.polwithcheck, p.polrelid), ''))
     FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = ANY ($1)",
    "-- migrations::catalogue, views
     SELECT format('definition of %I.%I', n.nspname, c.relname), pg_get_viewdef(c.oid)
     FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = ANY ($1) AND c.relkind IN ('v', 'm')
       AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')",
    "-- migrations::catalogue, functions
     SELECT format('function %I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
            format('owner %s, %s', p.proowner::regrole, pg_get_functiondef(p.oid))
     FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
     WHERE n.nspname = ANY ($1) AND p.prokind IN ('f', 'p')
       AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e')",
    "-- migrations::catalogue, triggers
     SELECT format('trigger %I of %I.%I', t.tgname, n.nspname, c.relname),
            pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'O' THEN '' ELSE ' (enabled: ' || t.tgenabled::text || ')' END
     FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE n.nspname = ANY ($1) AND NOT t.tgisinternal",
    "-- migrations::catalogue, grants
     SELECT format('grant of %s on %s to %s', g.privilege_type, g.object,
                CASE WHEN g.grantee = 0 THEN 'public' ELSE g.grantee::regrole::text END),
            CASE WHEN bool_or(g.is_grantable) THEN 'with grant option' ELSE 'there' END
     FROM (
         SELECT format('%I.%I', n.nspname, c.relname) AS object, a.*
         FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
         CROSS JOIN LATERAL aclexplode(coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner))) AS a
         WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
         UNION ALL
         SELECT format('%I.%I (%I)', n.nspname, c.relname, t.attname), a.*
         FROM pg_attribute AS t JOIN pg_class AS c ON c.oid = t.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
         CROSS JOIN LATERAL aclexplode(t.attacl) AS a
         WHERE n.nspname = ANY ($1)
         UNION ALL
         SELECT format('schema %I', n.nspname), a.*
         FROM pg_namespace AS n CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS a
         WHERE n.nspname = ANY ($1 || '{public}'::text[])
         UNION ALL
         SELECT format('function %I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), a.*
         FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
         CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
         WHERE n.nspname = ANY ($1)
           AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e')
         UNION ALL
         SELECT 'the database', a.*
         FROM pg_database AS b CROSS JOIN LATERAL aclexplode(coalesce(b.datacl, acldefault('d', b.datdba))) AS a
         WHERE b.datname = current_database() AND a.grantee <> b.datdba
     ) AS g
     GROUP BY g.privilege_type, g.object, g.grantee",
    "-- migrations::catalogue, settings
     SELECT format('setting %s of %s', split_part(o.setting, '=', 1), s.setrole::regrole), split_part(o.setting, '=', 2)
     FROM pg_db_role_setting AS s CROSS JOIN LATERAL unnest(s.setconfig) AS o (setting)
     WHERE s.setdatabase = (SELECT b.oid FROM pg_database AS b WHERE b.datname = current_database())
       AND s.setrole::regrole::text LIKE 'prospectus\\_%' AND $1::text[] IS NOT NULL",
];

/// The facts of a database that has the files' schemas: everything in them, with the live generation's under one name.
///
/// # Errors
/// If the database is away or refuses: a superuser's connection is needed.
pub async fn facts(client: &Client) -> Result<Facts, Error> {
    const LIVE: &str = "-- migrations::catalogue::facts, live
        SELECT l.generation FROM read.live AS l WHERE l.projection = $1 /* projection */";
    // Names in definitions are written out whatever the connection's own path is.
    client.batch_execute("-- migrations::catalogue::facts\nSET search_path = ''").await?;
    let live = client.query_opt(LIVE, &[&crate::COMPANY_PROSPECT]).await?.map(|row| crate::schema_name(row.get(0)));
    let mut schemas: Vec<String> = SCHEMAS.iter().map(|name| (*name).to_owned()).collect();
    schemas.extend(live.clone());
    let mut facts = Facts::new();
    for question in QUESTIONS {
        let rows = if question.contains("$1") {
            client.query(*question, &[&schemas]).await?
        } else {
            client.query(*question, &[]).await?
        };
        for row in rows {
            let text = |index: usize| named(row.get(index), live.as_deref());
            facts.insert(text(0), text(1));
        }
    }
    Ok(facts)
}

/// The schemas that files make; a new one gets its name here.
const SCHEMAS: &[&str] = &["access", "log", "migrations", "ops", "read"];

fn named(text: &str, live: Option<&str>) -> String {
    live.map_or_else(
        || text.to_owned(),
        |live| {
            let number = live.trim_start_matches("read_");
            text.replace(&format!("{live}."), &format!("{LIVE_SCHEMA}."))
                .replace(&format!("schema {live}"), &format!("schema {LIVE_SCHEMA}"))
                // What is counted of a generation asks for its own checkpoint.
                .replace(&format!("generation = {number})"), "generation = its own)")
        },
    )
}

/// What differs, a line each: what is missing, what should not be there, what is otherwise than it should be. Extensions that nobody needs
/// do no harm.
pub fn differences(expected: &Facts, found: &Facts) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, should) in expected {
        match found.get(name) {
            None => lines.push(format!("{name}: is missing, should be: {}", short(should))),
            Some(is) if is != should => lines.push(differs(name, should, is)),
            Some(_) => {}
        }
    }
    for (name, is) in found.iter().filter(|(name, _)| !expected.contains_key(*name) && !name.starts_with("extension "))
    {
        lines.push(format!("{name}: should not be there, is: {}", short(is)));
    }
    lines.sort();
    lines
}

/// Of long texts the first line that differs.
fn differs(name: &str, should: &str, is: &str) -> String {
    let pairs = || {
        let lines = should.lines().count().max(is.lines().count());
        (0..lines).map(|line| (should.lines().nth(line).unwrap_or(""), is.lines().nth(line).unwrap_or("")))
    };
    let (should, is) = pairs().find(|(should, is)| should != is).unwrap_or((should, is));
    format!("{name}: should be: {}, is: {}", short(should), short(is))
}

fn short(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.chars().count() <= 300 { text } else { format!("{} …", text.chars().take(300).collect::<String>()) }
}

//! How much room there is for a new generation: PostgreSQL does not tell, so it is the operator's word, or what the file system says
//! where the server runs on this machine.

use std::path::Path;

use tokio_postgres::Client;

/// Bytes that are free, and where that is from, for people; none where nobody knows.
///
/// # Errors
/// What the server said.
pub async fn of(client: &Client, given: Option<u64>) -> Result<(Option<u64>, String), tokio_postgres::Error> {
    const SQL: &str = "-- cli::rebuild::room::of
        SELECT current_setting('data_directory', true),
               inet_server_addr() IS NULL OR inet_server_addr() << '127.0.0.0/8' OR inet_server_addr() = '::1'
                   OR inet_server_addr() = inet_client_addr()";
    if let Some(given) = given {
        return Ok((Some(given), format!("{given} bytes, as given")));
    }
    let row = client.query_one(SQL, &[]).await?;
    let (directory, local): (Option<String>, bool) = (row.get(0), row.get(1));
    let Some(directory) = directory.filter(|_| local) else {
        return Ok((None, "not known, because the server runs elsewhere: not checked; --disk names it".to_owned()));
    };
    Ok(match rustix::fs::statvfs(Path::new(&directory)) {
        Ok(found) => {
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            (Some(free), format!("{free} bytes are free in {directory}"))
        }
        Err(_) => (None, format!("not known, because {directory} cannot be looked at: not checked; --disk names it")),
    })
}

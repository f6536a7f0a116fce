//! Connections to PostgreSQL: one parsed address with its TLS, from which single connections and bounded pools are made.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{CancelToken, Client, Config, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::tls::Roots;

/// The part of a connection that must be driven for the client to make progress.
pub type Connection = tokio_postgres::Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A database that can be connected to: address, role, TLS.
#[derive(Clone)]
pub struct Database {
    config: Config,
    tls: MakeRustlsConnect,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Database({})", self.name())
    }
}

/// Why an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The URL is not a PostgreSQL URL. The URL itself is not repeated: it holds a password.
    #[error("not a PostgreSQL URL (postgres://role:password@host:port/database): {0}")]
    Url(tokio_postgres::Error),
    /// The root certificates could not be read.
    #[error("root certificates for TLS to PostgreSQL: {0}")]
    Roots(String),
    /// A pool could not be made.
    #[error("connection pool: {0}")]
    Pool(#[from] deadpool_postgres::BuildError),
}

impl Database {
    /// Parses a `postgres://` URL. `sslmode` is `disable`, `prefer` or `require`; with `require` the server's certificate must be
    /// signed by `PROSPECTUS_TLS_ROOT_FILE` or, without it, by one of the system's authorities.
    ///
    /// # Errors
    /// If the URL cannot be parsed or the root certificates cannot be read.
    pub fn parse(url: &str, application_name: &str) -> Result<Self, DatabaseError> {
        let mut config: Config = url.parse().map_err(DatabaseError::Url)?;
        config.application_name(application_name);
        config.connect_timeout(CONNECT_TIMEOUT);
        config.keepalives_idle(Duration::from_secs(10));
        // A server that vanished without a word is noticed within this time, also in the middle of a query.
        config.tcp_user_timeout(Duration::from_secs(15));
        Ok(Self { tls: tls(config.get_ssl_mode())?, config })
    }

    /// The same database, but only a server that takes writes is connected to: after a failover, the new primary.
    #[must_use]
    pub fn read_write(mut self) -> Self {
        self.config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        self
    }

    /// The same database with another option of the server set for each connection, as `-c name=value`.
    #[must_use]
    pub fn with_option(mut self, name: &str, value: &str) -> Self {
        let options = match self.config.get_options() {
            Some(before) => format!("{before} -c {name}={value}"),
            None => format!("-c {name}={value}"),
        };
        self.config.options(options);
        self
    }

    /// Hosts, ports and database, for messages: never the password.
    pub fn name(&self) -> String {
        let (hosts, ports) = self.places();
        format!("{hosts}:{ports}/{}", self.config.get_dbname().unwrap_or_default())
    }

    /// Hosts and ports, with commas between them.
    fn places(&self) -> (String, String) {
        let host = |host: &Host| match host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        };
        let hosts: Vec<String> = self.config.get_hosts().iter().map(host).collect();
        let ports: Vec<String> = self.config.get_ports().iter().map(ToString::to_string).collect();
        (hosts.join(","), ports.join(","))
    }

    /// The same database for PostgreSQL's own programs: a connection string, which may stand in a command line, and the password, which goes
    /// into `PGPASSWORD`.
    pub fn libpq(&self) -> (String, String) {
        let (hosts, ports) = self.places();
        let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        let mut words = vec![format!("host={}", quoted(&hosts))];
        if !ports.is_empty() {
            words.push(format!("port={ports}"));
        }
        if let Some(user) = self.config.get_user() {
            words.push(format!("user={}", quoted(user)));
        }
        if self.config.get_target_session_attrs() == TargetSessionAttrs::ReadWrite {
            words.push("target_session_attrs=read-write".to_owned());
        }
        words.push(match self.config.get_ssl_mode() {
            SslMode::Disable => "sslmode=disable".to_owned(),
            // What is required here is a certificate that can be checked.
            SslMode::Require => match std::env::var("PROSPECTUS_TLS_ROOT_FILE") {
                Ok(file) => format!("sslmode=verify-full sslrootcert={}", quoted(&file)),
                Err(_) => "sslmode=verify-full sslrootcert=/etc/ssl/certs/ca-certificates.crt".to_owned(),
            },
            _ => "sslmode=prefer".to_owned(),
        });
        let password = String::from_utf8_lossy(self.config.get_password().unwrap_or_default()).into_owned();
        (words.join(" "), password)
    }

    /// One connection of its own. The second part must be driven by the caller, who may want to see the server's notices.
    ///
    /// # Errors
    /// What the server or the network said.
    pub async fn connect(&self) -> Result<(Client, Connection), tokio_postgres::Error> {
        self.config.connect(self.tls.clone()).await
    }

    /// One connection of its own, driven in the background until the client is dropped.
    ///
    /// # Errors
    /// What the server or the network said.
    pub async fn client(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.connect().await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to PostgreSQL ended");
            }
        });
        Ok(client)
    }

    /// Asks the server to cancel what runs now on the connection that the token is of. Returns once the request is sent; whether and
    /// when the statement ends, its own connection says.
    ///
    /// # Errors
    /// If the request cannot be sent.
    pub async fn cancel(&self, token: &CancelToken) -> Result<(), tokio_postgres::Error> {
        token.cancel_query(self.tls.clone()).await
    }

    /// A pool of at most `connections_max`; whoever waits longer than `wait` for one gets an error.
    ///
    /// # Errors
    /// If the pool cannot be built.
    pub fn pool(&self, connections_max: usize, wait: Duration) -> Result<Pool, DatabaseError> {
        let manager = Manager::from_config(
            self.config.clone(),
            self.tls.clone(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        Ok(Pool::builder(manager)
            .max_size(connections_max)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(wait))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .build()?)
    }
}

/// What went wrong, for logs and operators: the server's SQLSTATE, message and constraint, where the library prints only "db error".
/// Never the detail, which may hold a row's values.
pub fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        let place = said.constraint().map(|name| format!(" (constraint {name})")).unwrap_or_default();
        return format!("{} {}{place}", said.code().code(), said.message());
    }
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn tls(mode: SslMode) -> Result<MakeRustlsConnect, DatabaseError> {
    let roots = if mode == SslMode::Disable { Roots::OnlyFile } else { Roots::FileOrSystem };
    crate::tls::client_config(roots)
        .map(MakeRustlsConnect::new)
        .map_err(|error| DatabaseError::Roots(error.to_string()))
}

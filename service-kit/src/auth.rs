//! Who is asking: API keys, their roles, and the middleware that puts a [`Principal`] into every request.
//!
//! A key that was looked up counts for 5 seconds, so a revoked one is refused after that at the latest (on a replica: plus its
//! lag). While no database answers, a key that was valid goes on counting for a minute.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use deadpool_postgres::Pool;
use http::request::Parts;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use uuid::Uuid;

use crate::problem::{Code, Problem};

/// How long a valid key counts without another look.
const VALID_FOR: Duration = Duration::from_secs(5);
/// From this age on a valid key is looked up again in the background, so that no request waits for it.
const REFRESH_AFTER: Duration = Duration::from_secs(4);
/// How long an unknown key stays unknown without another look.
const UNKNOWN_FOR: Duration = Duration::from_secs(1);
/// How long a valid key counts while no database answers.
const OUTAGE_FOR: Duration = Duration::from_secs(60);
/// After a look-up that no database answered, others are not tried for this long.
const RETRY_DATABASE_AFTER: Duration = Duration::from_secs(1);
/// How long one look-up may take on one database.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// Keys that are remembered.
const CACHED_KEYS_MAX: usize = 10_000;

const PREFIX_START: &str = "pk_";
const PREFIX_CHARACTERS: usize = 12;
const SECRET_CHARACTERS: usize = 43;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads records and lists.
    Reader,
    /// That, and sends commands and imports.
    Writer,
    /// Reads records, histories, events, heads and proofs.
    Auditor,
    /// All of it, and erases and manages keys.
    Admin,
}

/// What an endpoint asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Records and lists.
    ReadRecords,
    /// Commands and imports.
    SendCommands,
    /// Histories, events, heads and proofs.
    ReadEvents,
    /// Erasing, keys.
    Administer,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Reader, Self::Writer, Self::Auditor, Self::Admin];

    /// Its name in the database and in commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }

    /// The role with this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Whether it has a permission.
    pub fn may(self, permission: Permission) -> bool {
        match permission {
            Permission::ReadRecords => true,
            Permission::SendCommands => matches!(self, Self::Writer | Self::Admin),
            Permission::ReadEvents => matches!(self, Self::Auditor | Self::Admin),
            Permission::Administer => self == Self::Admin,
        }
    }
}

impl Permission {
    /// What a refusal calls it.
    fn described(self) -> &'static str {
        match self {
            Self::ReadRecords => "to read records",
            Self::SendCommands => "to send commands",
            Self::ReadEvents => "to read histories and events",
            Self::Administer => "to administer",
        }
    }
}

/// Who sent a request. A handler takes it as an argument; see [`protect`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The tenant of the key, and so of everything that the request sees or changes.
    pub tenant_id: Uuid,
    /// The role of the key.
    pub role: Role,
    /// The part of the key that may be logged; the actor in an event's metadata.
    pub key_prefix: Arc<str>,
    /// Whether the tenant wants to know who reads its records.
    pub audits_reads: bool,
}

impl Principal {
    /// Passes if the role has the permission.
    ///
    /// # Errors
    /// The problem `forbidden`.
    pub fn require(&self, permission: Permission) -> Result<(), Problem> {
        if self.role.may(permission) {
            return Ok(());
        }
        let able: Vec<&str> = Role::ALL.into_iter().filter(|role| role.may(permission)).map(Role::name).collect();
        Err(Problem::new(
            Code::Forbidden,
            format!(
                "the role {} has no right {}; a key of role {} does",
                self.role.name(),
                permission.described(),
                able.join(" or ")
            ),
        ))
    }
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            tracing::error!(path = parts.uri.path(), "a route that needs a principal is not under auth::protect");
            Problem::internal()
        })
    }
}

/// A key as a client presents it: `pk_<12 letters or digits>.<43 characters base64url of 32 random bytes>`.
pub struct ApiKey {
    text: String,
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "ApiKey({})", self.prefix())
    }
}

impl ApiKey {
    /// A new random key.
    ///
    /// # Errors
    /// If the operating system gives no random bytes.
    pub fn generate() -> Result<Self, getrandom::Error> {
        const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut prefix = String::from(PREFIX_START);
        while prefix.len() < PREFIX_START.len() + PREFIX_CHARACTERS {
            let mut byte = [0];
            getrandom::fill(&mut byte)?;
            // Bytes past the last multiple of 62 are drawn again, so that every character is equally likely.
            if byte[0] < 248 {
                prefix.push(char::from(ALPHABET[usize::from(byte[0] % 62)]));
            }
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self { text: format!("{prefix}.{}", URL_SAFE_NO_PAD.encode(secret)) })
    }

    /// The key in a text, if it has the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let (prefix, secret) = text.split_once('.')?;
        let name = prefix.strip_prefix(PREFIX_START)?;
        let well_formed = name.len() == PREFIX_CHARACTERS
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && secret.len() == SECRET_CHARACTERS
            && secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        well_formed.then(|| Self { text: text.to_owned() })
    }

    /// The part before the dot, which may be logged.
    pub fn prefix(&self) -> &str {
        &self.text[..PREFIX_START.len() + PREFIX_CHARACTERS]
    }

    /// SHA-256 of the part after the dot, as the database holds it.
    pub fn secret_sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.text.as_bytes()[PREFIX_START.len() + PREFIX_CHARACTERS + 1..]).into()
    }

    /// The whole key: shown once, when it is made.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

/// Looks keys up, and remembers them for a while.
#[derive(Clone)]
pub struct Authenticator {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Authenticator({} keys)", self.inner.seen.len())
    }
}

struct Inner {
    /// Gives the databases in the order in which they are asked now.
    databases: Box<dyn Fn() -> Vec<Pool> + Send + Sync>,
    /// By SHA-256 of the whole key, so that a key's text is not kept and comparing tells nothing about another key.
    seen: quick_cache::sync::Cache<[u8; 32], Arc<Seen>>,
    /// No database answered at this time.
    outage_at: std::sync::Mutex<Option<Instant>>,
}

struct Seen {
    principal: Option<Principal>,
    confirmed_at: Instant,
    refreshing: AtomicBool,
}

/// No database answered.
struct Unavailable;

impl Authenticator {
    /// Asks the databases in this order, the next one only if one does not answer.
    pub fn new(databases: Vec<Pool>) -> Self {
        Self::in_order(move || databases.clone())
    }

    /// Asks for the databases and their order at each look-up: for servers that come, go and lag. The first that answers is
    /// believed, so one that lags must not come before one that does not.
    pub fn in_order(databases: impl Fn() -> Vec<Pool> + Send + Sync + 'static) -> Self {
        let inner = Inner {
            databases: Box::new(databases),
            seen: quick_cache::sync::Cache::new(CACHED_KEYS_MAX),
            outage_at: std::sync::Mutex::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Whose key this is.
    ///
    /// # Errors
    /// `unauthenticated` for a key that is unknown, wrong or revoked; `database_unavailable` where it cannot be looked up.
    pub async fn authenticate(&self, presented: &str) -> Result<Principal, Problem> {
        let hash: [u8; 32] = Sha256::digest(presented.as_bytes()).into();
        let seen = self.inner.seen.get(&hash);
        if let Some(seen) = &seen {
            let age = seen.confirmed_at.elapsed();
            match &seen.principal {
                Some(principal) if age < VALID_FOR => {
                    if age >= REFRESH_AFTER && !seen.refreshing.swap(true, Ordering::Relaxed) {
                        self.refresh(hash, presented.to_owned());
                    }
                    return Ok(principal.clone());
                }
                None if age < UNKNOWN_FOR => return Err(unknown()),
                _ => {}
            }
        }
        match self.look_up(hash, presented).await {
            Ok(Some(principal)) => Ok(principal),
            Ok(None) => Err(unknown()),
            Err(Unavailable) => seen
                .filter(|seen| seen.confirmed_at.elapsed() < OUTAGE_FOR)
                .and_then(|seen| seen.principal.clone())
                .ok_or_else(|| Problem::new(Code::DatabaseUnavailable, "the API key cannot be looked up now")),
        }
    }

    fn refresh(&self, hash: [u8; 32], presented: String) {
        let authenticator = self.clone();
        tokio::spawn(async move {
            // A failure shows when the key's time is over and a request looks it up itself.
            let _ = authenticator.look_up(hash, &presented).await;
        });
    }

    async fn look_up(&self, hash: [u8; 32], presented: &str) -> Result<Option<Principal>, Unavailable> {
        let principal = match ApiKey::parse(presented) {
            Some(key) => self.ask_databases(&key).await?,
            None => return Ok(None),
        };
        let seen =
            Seen { principal: principal.clone(), confirmed_at: Instant::now(), refreshing: AtomicBool::new(false) };
        self.inner.seen.insert(hash, Arc::new(seen));
        Ok(principal)
    }

    async fn ask_databases(&self, key: &ApiKey) -> Result<Option<Principal>, Unavailable> {
        if self.outage().is_some_and(|at| at.elapsed() < RETRY_DATABASE_AFTER) {
            return Err(Unavailable);
        }
        for database in (self.inner.databases)() {
            match tokio::time::timeout(LOOKUP_TIMEOUT, find(&database, key)).await {
                Ok(Ok(principal)) => return Ok(principal),
                Ok(Err(error)) => {
                    let error = error.downcast_ref().map_or_else(|| error.to_string(), crate::postgres::describe);
                    tracing::warn!(error, "an API key could not be looked up");
                }
                Err(_) => tracing::warn!("looking up an API key took too long"),
            }
        }
        *self.inner.outage_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Instant::now());
        Err(Unavailable)
    }

    fn outage(&self) -> Option<Instant> {
        *self.inner.outage_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Requires a valid key for every route of a router; its handlers get the [`Principal`] as an argument. Paths that it does not
/// have stay 404.
pub fn protect<S: Clone + Send + Sync + 'static>(router: Router<S>, authenticator: Authenticator) -> Router<S> {
    router.route_layer(axum::middleware::from_fn_with_state(authenticator, require_key))
}

async fn require_key(State(authenticator): State<Authenticator>, mut request: Request, next: Next) -> Response {
    let presented = request
        .headers()
        .get(http::header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim());
    let Some(presented) = presented else {
        return Problem::new(Code::Unauthenticated, "send the header `Authorization: Bearer <key>`").into_response();
    };
    match authenticator.authenticate(presented).await {
        Ok(principal) => {
            request.extensions_mut().insert(principal.clone());
            let mut response = next.run(request).await;
            // For the log line of `http::observe`.
            response.extensions_mut().insert(principal);
            response
        }
        Err(problem) => problem.into_response(),
    }
}

fn unknown() -> Problem {
    Problem::new(Code::Unauthenticated, "the API key is not known here, or it was revoked")
}

async fn find(database: &Pool, key: &ApiKey) -> anyhow::Result<Option<Principal>> {
    let client = database.get().await?;
    let statement = client
        .prepare_cached(
            "-- service_kit::auth::find
             SELECT k.tenant_id, k.secret_sha256, k.role, k.revoked, k.audits_reads
             FROM access.find_principal($1 /* prefix */) AS k",
        )
        .await?;
    let Some(row) = client.query_opt(&statement, &[&key.prefix()]).await? else { return Ok(None) };
    let stored: &[u8] = row.try_get(1)?;
    let (role, revoked): (&str, bool) = (row.try_get(2)?, row.try_get(3)?);
    if revoked || !equal(stored, &key.secret_sha256()) {
        return Ok(None);
    }
    let Some(role) = Role::find(role) else { anyhow::bail!("a key has a role that this release does not know") };
    let (tenant_id, audits_reads) = (row.try_get(0)?, row.try_get(4)?);
    Ok(Some(Principal { tenant_id, role, key_prefix: key.prefix().into(), audits_reads }))
}

/// Compares in a time that does not depend on where the two differ.
fn equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_has_the_documented_form_and_parses() {
        let key = ApiKey::generate().expect("random bytes");
        assert_eq!(key.expose().len(), 3 + 12 + 1 + 43);
        let parsed = ApiKey::parse(key.expose()).expect("its own form");
        assert_eq!(parsed.prefix(), key.prefix());
        assert_eq!(parsed.secret_sha256(), key.secret_sha256());
        assert!(!format!("{key:?}").contains(&key.expose()[16..]), "Debug shows the prefix only");
    }

    #[test]
    fn texts_of_another_form_are_no_keys() {
        let key = ApiKey::generate().expect("random bytes").expose().to_owned();
        let wrong = [
            "",
            "pk_",
            &key[1..],
            &key[..key.len() - 1],
            &format!("{key}A"),
            &key.replace('.', ":"),
            &key.replacen('p', "x", 1),
            &format!("{}é", &key[..key.len() - 2]),
            &key.replacen(&key[4..5], "-", 1),
        ];
        for text in wrong {
            assert!(ApiKey::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn roles_may_what_the_api_document_says() {
        use Permission::{Administer, ReadEvents, ReadRecords, SendCommands};
        let table = [
            (Role::Reader, [true, false, false, false]),
            (Role::Writer, [true, true, false, false]),
            (Role::Auditor, [true, false, true, false]),
            (Role::Admin, [true, true, true, true]),
        ];
        for (role, expected) in table {
            let may = [ReadRecords, SendCommands, ReadEvents, Administer].map(|permission| role.may(permission));
            assert_eq!(may, expected, "{role:?}");
        }
    }
}

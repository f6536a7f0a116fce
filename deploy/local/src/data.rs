//! The data directory: where everything of one stack lies, and its secrets, which are made once and never leave it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use service_kit::auth::ApiKey;

use crate::account::Account;
use crate::error::StackError;
use crate::part::Part;

/// The roles of the services, which log in with passwords of this stack.
pub(crate) const ROLES: [&str; 8] = [
    "prospectus_appender",
    "prospectus_relay",
    "prospectus_projector",
    "prospectus_query",
    "prospectus_sealer",
    "prospectus_verifier",
    "prospectus_operator",
    "prospectus_reads",
];

/// One stack's files. Only one supervisor at a time has it.
#[derive(Debug)]
pub(crate) struct Data {
    root: PathBuf,
    /// Held as long as the stack runs; the system lets go of it when the process ends, however it ends.
    _lock: File,
    pub(crate) superuser_password: String,
    pub(crate) role_passwords: BTreeMap<String, String>,
    pub(crate) api_key: String,
    pub(crate) ports: BTreeMap<String, u16>,
}

/// `PROSPECTUS_DATA_DIR`, else `.data` in the current directory.
pub fn data_directory() -> PathBuf {
    std::env::var_os("PROSPECTUS_DATA_DIR").map_or_else(|| PathBuf::from(".data"), PathBuf::from)
}

impl Data {
    /// Opens the directory, making it and its secrets where they are not there yet.
    pub(crate) async fn open(root: &Path, account: Option<Account>) -> Result<Self, StackError> {
        fs::create_dir_all(root).map_err(StackError::io(format!("making {}", root.display())))?;
        let root = fs::canonicalize(root).map_err(StackError::io(format!("finding {}", root.display())))?;
        set_mode(&root, 0o711)?;
        if let Some(account) = account
            && !account.reaches(&root).await
        {
            return Err(StackError::DataDirectory(format!(
                "PostgreSQL runs as an unprivileged user, which cannot reach {}: set PROSPECTUS_DATA_DIR to a directory whose \
                 parents others may enter",
                root.display()
            )));
        }
        let lock = File::create(root.join("lock")).map_err(StackError::io("making the lock file"))?;
        if lock.try_lock().is_err() {
            return Err(StackError::InUse(root));
        }
        for directory in ["logs", "nats"] {
            fs::create_dir_all(root.join(directory)).map_err(StackError::io(format!("making {directory}")))?;
        }
        if let Some(account) = account {
            account.own(&root.join("nats"))?;
        }
        let file = root.join("secrets.json");
        if !file.exists() {
            write_private(&file, &serde_json::to_string_pretty(&new_secrets()?).unwrap_or_default())?;
        }
        let text = fs::read_to_string(&file).map_err(StackError::io("reading the stack's secrets"))?;
        let mut secrets: Value = serde_json::from_str(&text)
            .map_err(|error| StackError::DataDirectory(format!("{}: {error}", file.display())))?;
        // A stack of an earlier release knows fewer roles.
        let missing: Vec<&str> = ROLES.into_iter().filter(|role| !secrets["roles"][role].is_string()).collect();
        if !missing.is_empty() {
            for role in missing {
                secrets["roles"][role] = password()?.into();
            }
            write_private(&file, &serde_json::to_string_pretty(&secrets).unwrap_or_default())?;
        }
        let text = |name: &str| secrets[name].as_str().unwrap_or_default().to_owned();
        let keyring = root.join("keyring");
        if !keyring.exists() {
            write_private(&keyring, &text("keyring"))?;
        }
        let seal_key = root.join("seal_key");
        if !seal_key.exists() {
            let text = format!(
                "# Made by local-stack. Signs the heads of this stack's log.\nseal {}\n",
                STANDARD.encode(bytes()?)
            );
            write_private(&seal_key, &text)?;
        }
        let role_passwords = ROLES
            .iter()
            .map(|role| ((*role).to_owned(), secrets["roles"][role].as_str().unwrap_or_default().to_owned()))
            .collect();
        let ports = fs::read_to_string(root.join("ports.json"))
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default();
        Ok(Self {
            _lock: lock,
            superuser_password: text("superuser"),
            role_passwords,
            api_key: text("api_key"),
            ports,
            root,
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn log(&self, part: Part) -> PathBuf {
        self.root.join("logs").join(format!("{part}.log"))
    }

    /// Remembers the ports, so that a second start has the same addresses.
    pub(crate) fn save_ports(&self) -> Result<(), StackError> {
        replace(&self.root.join("ports.json"), &serde_json::to_string(&self.ports).unwrap_or_default())
    }
}

/// Replaces a file by rename, so that a reader sees the old or the new one.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), StackError> {
    let beside = path.with_extension("new");
    fs::write(&beside, text).map_err(StackError::io(format!("writing {}", beside.display())))?;
    fs::rename(&beside, path).map_err(StackError::io(format!("replacing {}", path.display())))
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<(), StackError> {
    let what = || format!("writing {}", path.display());
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(StackError::io(what()))?;
    file.write_all(text.as_bytes()).map_err(StackError::io(what()))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), StackError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(StackError::io(format!("opening {}", path.display())))
}

fn new_secrets() -> Result<Value, StackError> {
    let roles: BTreeMap<&str, String> =
        ROLES.iter().map(|role| Ok((*role, password()?))).collect::<Result<_, StackError>>()?;
    let key = ApiKey::generate().map_err(random)?;
    let keyring = format!(
        "# Made by local-stack. Without these keys the personal data of this stack cannot be read.\nwrap k1 {}\nindex {}\n",
        STANDARD.encode(bytes()?),
        STANDARD.encode(bytes()?)
    );
    Ok(json!({"superuser": password()?, "roles": roles, "api_key": key.expose(), "keyring": keyring}))
}

fn password() -> Result<String, StackError> {
    Ok(URL_SAFE_NO_PAD.encode(bytes()?))
}

fn bytes() -> Result<[u8; 32], StackError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(random)?;
    Ok(bytes)
}

fn random(error: getrandom::Error) -> StackError {
    StackError::DataDirectory(format!("no random numbers from the operating system: {error}"))
}

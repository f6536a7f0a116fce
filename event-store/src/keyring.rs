//! Keys from outside the database (decision 17): the key-encryption keys that wrap each person's key, and the key of the
//! HMACs that personal values are found by.
//!
//! The key file has one line `wrap <id> <32 bytes in base64>` per key-encryption key, the first for new persons, and one line
//! `index <32 bytes in base64>`. Keys of persons and imports go through [`Keyring::wrap`] and [`Keyring::unwrap`] and nowhere else: a key
//! service (Vault, a cloud's) that wraps and unwraps 32 bytes takes its place there (`docs/personal-data.md`).

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use domain::ClaimKey;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use tokio_postgres::Client;
use uuid::Uuid;
use zeroize::Zeroizing;

const NONCE_BYTES: usize = 12;
const INDEX_KEY_ID: &str = "index";
const PROOF_TEXT: &[u8] = b"prospectus wrapping key";

/// 32 random bytes that seal one person's data. Leaves memory when dropped.
#[derive(Clone)]
pub struct PersonKey(Zeroizing<[u8; 32]>);

/// A person's key as it stands in `log.person_keys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which key-encryption key.
    pub wrapping_key_id: String,
    /// Nonce and ciphertext.
    pub wrapped: Vec<u8>,
}

/// The keys of one deployment.
pub struct Keyring {
    wrapping: Vec<WrappingKey>,
    index: Zeroizing<[u8; 32]>,
}

struct WrappingKey {
    id: String,
    cipher: Aes256Gcm,
}

/// Why keys cannot be used. Never an erasure: whoever gets one of these stops.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key file is not of its form. Its content is not repeated.
    #[error("key file, line {line}: {problem}")]
    File {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The key file has no such line.
    #[error("the key file has no line `{0}`; see ARCHITECTURE.md for its form")]
    Missing(&'static str),
    /// A person's key was wrapped by a key that the key file does not have.
    #[error("key-encryption key `{0}` is not in the key file")]
    UnknownWrappingKey(String),
    /// The key file has a key of this name, but it is not the one that this log was written with.
    #[error("key `{0}` of the key file is not the key of that name that this log was written with")]
    WrongKey(String),
    /// New keys would be wrapped by a key that was retired.
    #[error(
        "key-encryption key `{0}`, the first of the key file, is retired: put the `wrap` line of a newer one before it, or take it out"
    )]
    Retired(String),
    /// A person's key row is not there.
    #[error("person {0} has sealed data but no key row")]
    NoKeyRow(Uuid),
    /// Ciphertext that the key does not open: damaged, or moved from another place.
    #[error("sealed data of {0} cannot be opened with its key")]
    Damaged(Uuid),
    /// The operating system gave no random numbers.
    #[error("no random numbers from the operating system: {0}")]
    Random(#[from] getrandom::Error),
    /// The database could not be asked.
    #[error("keys could not be read: {}", service_kit::postgres::describe(.0))]
    Database(#[from] tokio_postgres::Error),
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<&str> = self.wrapping.iter().map(|key| key.id.as_str()).collect();
        write!(out, "Keyring(wrapping: {ids:?})")
    }
}

impl Keyring {
    /// Parses the text of a key file.
    ///
    /// # Errors
    /// With the line's number, never its content.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut wrapping: Vec<WrappingKey> = Vec::new();
        let mut index = None;
        for (number, line) in text.lines().enumerate() {
            let problem = |problem| KeyError::File { line: number + 1, problem };
            let line = line.split('#').next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                [] => {}
                ["wrap", id, key] if id.len() <= 100 && id != INDEX_KEY_ID => {
                    if wrapping.iter().any(|known| known.id == id) {
                        return Err(problem("a second key of this name"));
                    }
                    let key = key_bytes(key).ok_or_else(|| problem("not 32 bytes in base64"))?;
                    wrapping.push(WrappingKey { id: id.to_owned(), cipher: Aes256Gcm::new((&*key).into()) });
                }
                ["index", key] if index.is_none() => {
                    index = Some(key_bytes(key).ok_or_else(|| problem("not 32 bytes in base64"))?);
                }
                _ => return Err(problem("neither `wrap <id> <key>` nor the only `index <key>`")),
            }
        }
        if wrapping.is_empty() {
            return Err(KeyError::Missing("wrap <id> <key>"));
        }
        Ok(Self { wrapping, index: index.ok_or(KeyError::Missing("index <key>"))? })
    }

    /// Checks the keys against those that the log was written with, and leaves word of new ones if `client` may write them.
    /// A service calls this before it serves.
    ///
    /// # Errors
    /// [`KeyError::WrongKey`] if a key has the name of another one; [`KeyError::UnknownWrappingKey`] if the log knows a key that
    /// the key file lacks.
    pub async fn verify(&self, client: &Client, may_write: bool) -> Result<(), KeyError> {
        const KNOWN: &str = "-- event_store::keyring::verify, known
            SELECT wrapping_key_id, proof, retired_at IS NOT NULL FROM log.wrapping_keys";
        let known = client.query(KNOWN, &[]).await?;
        let mut names = Vec::with_capacity(known.len());
        for row in &known {
            let (name, proof, retired): (String, &[u8], bool) = (row.get(0), row.get(1), row.get(2));
            if retired && self.current().id == name {
                return Err(KeyError::Retired(name));
            }
            // Nothing is wrapped by a retired key any more: the key file may do without it.
            if !retired || self.wrapping_key(&name).is_ok() {
                self.check_proof(&name, proof)?;
            }
            names.push(name);
        }
        if !may_write {
            return Ok(());
        }
        const ADD: &str = "-- event_store::keyring::verify, add
            INSERT INTO log.wrapping_keys (wrapping_key_id, proof) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        let mut added = false;
        for key in self.wrapping.iter().filter(|key| !names.contains(&key.id)) {
            let proof = encrypt(&key.cipher, PROOF_TEXT, key.id.as_bytes())?;
            client.execute(ADD, &[&key.id, &proof]).await?;
            added = true;
        }
        if !names.iter().any(|name| name == INDEX_KEY_ID) {
            client.execute(ADD, &[&INDEX_KEY_ID, &self.index_proof()]).await?;
            added = true;
        }
        if added {
            // Another service may have been first with another key of the same name: what stands counts.
            for row in client.query(KNOWN, &[]).await?.iter().filter(|row| !row.get::<_, bool>(2)) {
                self.check_proof(row.get(0), row.get(1))?;
            }
        }
        Ok(())
    }

    fn check_proof(&self, name: &str, proof: &[u8]) -> Result<(), KeyError> {
        let wrong = || KeyError::WrongKey(name.to_owned());
        if name == INDEX_KEY_ID {
            return if proof == self.index_proof() { Ok(()) } else { Err(wrong()) };
        }
        let text = decrypt(&self.wrapping_key(name)?.cipher, proof, name.as_bytes()).ok_or_else(wrong)?;
        if *text == PROOF_TEXT { Ok(()) } else { Err(wrong()) }
    }

    fn index_proof(&self) -> Vec<u8> {
        hmac(&self.index, &[PROOF_TEXT]).to_vec()
    }

    fn wrapping_key(&self, id: &str) -> Result<&WrappingKey, KeyError> {
        self.wrapping.iter().find(|key| key.id == id).ok_or_else(|| KeyError::UnknownWrappingKey(id.to_owned()))
    }

    /// A new person's key, and the form of it that goes into the database.
    ///
    /// # Errors
    /// If the operating system gives no random numbers.
    pub fn new_person_key(&self, tenant: Uuid, person: Uuid) -> Result<(PersonKey, WrappedKey), KeyError> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key)?;
        let key = PersonKey(key);
        let wrapped = self.wrap(tenant, person, &key)?;
        Ok((key, wrapped))
    }

    /// The key-encryption key that wraps new keys: the first of the key file.
    fn current(&self) -> &WrappingKey {
        // A key file without one is refused.
        &self.wrapping[0]
    }

    /// Name of the key-encryption key that wraps new keys.
    pub fn current_id(&self) -> &str {
        &self.current().id
    }

    /// A person's or import's key in the form that goes into the database, wrapped by the current key-encryption key and bound to tenant and
    /// owner.
    ///
    /// # Errors
    /// If the operating system gives no random numbers.
    pub fn wrap(&self, tenant: Uuid, owner: Uuid, key: &PersonKey) -> Result<WrappedKey, KeyError> {
        let current = self.current();
        let wrapped = encrypt(&current.cipher, &*key.0, &key_context(tenant, owner))?;
        Ok(WrappedKey { wrapping_key_id: current.id.clone(), wrapped })
    }

    /// A person's key from the form in the database.
    ///
    /// # Errors
    /// If the key that wraps it is not in the key file, or does not open it.
    pub fn unwrap(&self, tenant: Uuid, person: Uuid, wrapped: &WrappedKey) -> Result<PersonKey, KeyError> {
        let wrapping = self.wrapping_key(&wrapped.wrapping_key_id)?;
        let key = decrypt(&wrapping.cipher, &wrapped.wrapped, &key_context(tenant, person))
            .ok_or(KeyError::Damaged(person))?;
        let key: [u8; 32] = key.as_slice().try_into().map_err(|_| KeyError::Damaged(person))?;
        Ok(PersonKey(Zeroizing::new(key)))
    }

    /// The text under which a claim or match stands in the database.
    pub fn claim_key(&self, tenant: Uuid, kind: &str, key: &ClaimKey) -> String {
        match key {
            ClaimKey::Plain(text) => text.clone(),
            ClaimKey::Personal(value) => {
                URL_SAFE_NO_PAD.encode(self.tenant_hmac(tenant, &[kind.as_bytes(), &[0], value.as_bytes()]))
            }
        }
    }

    /// An HMAC-SHA-256 of the concatenated parts under the tenant's key, which is derived from the index key and the tenant.
    pub fn tenant_hmac(&self, tenant: Uuid, parts: &[&[u8]]) -> [u8; 32] {
        let tenant_key = Zeroizing::new(hmac(&self.index, &[b"tenant", tenant.as_bytes()]));
        hmac(&tenant_key, parts)
    }
}

impl PersonKey {
    /// Seals one personal member; what it is bound to is the tenant, the person and the event. Base64 without padding.
    ///
    /// # Errors
    /// If the operating system gives no random numbers.
    pub fn seal(&self, tenant: Uuid, person: Uuid, event: Uuid, text: &[u8]) -> Result<domain::Sealed, KeyError> {
        let cipher = Aes256Gcm::new((&*self.0).into());
        let mut bytes = vec![crate::seal::VERSION];
        bytes.extend(encrypt(&cipher, text, &crate::seal::context(tenant, person, event))?);
        Ok(domain::Sealed(base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes)))
    }

    /// Seals a part of something that is no event; what it is bound to is the tenant, the owner and the part's name.
    ///
    /// # Errors
    /// If the operating system gives no random numbers.
    pub fn seal_part(&self, tenant: Uuid, owner: Uuid, part: &str, text: &[u8]) -> Result<Vec<u8>, KeyError> {
        encrypt(&Aes256Gcm::new((&*self.0).into()), text, &part_context(tenant, owner, part))
    }

    /// Opens what [`PersonKey::seal_part`] sealed.
    ///
    /// # Errors
    /// [`KeyError::Damaged`] if it was changed, or belongs to another tenant, owner or part.
    pub fn open_part(
        &self,
        tenant: Uuid,
        owner: Uuid,
        part: &str,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let cipher = Aes256Gcm::new((&*self.0).into());
        decrypt(&cipher, sealed, &part_context(tenant, owner, part)).ok_or(KeyError::Damaged(owner))
    }

    /// Opens what [`PersonKey::seal`] sealed.
    ///
    /// # Errors
    /// [`KeyError::Damaged`] if it was changed, or belongs to another tenant, person or event.
    pub fn open(
        &self,
        tenant: Uuid,
        person: Uuid,
        event: Uuid,
        sealed: &domain::Sealed,
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(&sealed.0).ok();
        let (version, rest) = bytes.as_deref().and_then(<[u8]>::split_first).ok_or(KeyError::Damaged(person))?;
        if *version != crate::seal::VERSION {
            return Err(KeyError::Damaged(person));
        }
        let cipher = Aes256Gcm::new((&*self.0).into());
        decrypt(&cipher, rest, &crate::seal::context(tenant, person, event)).ok_or(KeyError::Damaged(person))
    }
}

fn key_bytes(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    Some(Zeroizing::new(bytes.as_slice().try_into().ok()?))
}

fn key_context(tenant: Uuid, person: Uuid) -> [u8; 32] {
    let mut context = [0; 32];
    context[..16].copy_from_slice(tenant.as_bytes());
    context[16..].copy_from_slice(person.as_bytes());
    context
}

fn part_context(tenant: Uuid, owner: Uuid, part: &str) -> Vec<u8> {
    [tenant.as_bytes().as_slice(), owner.as_bytes(), part.as_bytes()].concat()
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn encrypt(cipher: &Aes256Gcm, text: &[u8], context: &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce)?;
    let sealed = cipher
        .encrypt(&Nonce::from(nonce), Payload { msg: text, aad: context })
        .expect("AES-GCM takes texts up to 64 GiB, far beyond what a request may hold");
    let mut out = Vec::with_capacity(NONCE_BYTES + sealed.len());
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&sealed);
    Ok(out)
}

fn decrypt(cipher: &Aes256Gcm, bytes: &[u8], context: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = bytes.split_first_chunk::<NONCE_BYTES>()?;
    let text = cipher.decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad: context }).ok()?;
    Some(Zeroizing::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(fill: u8) -> Keyring {
        let key = STANDARD.encode([fill; 32]);
        Keyring::parse(&format!("# test\nwrap k1 {key}\n\nindex {key} # for HMACs\n")).expect("a well-formed key file")
    }

    #[test]
    fn what_is_sealed_opens_only_in_its_own_place() {
        let keyring = keyring(7);
        let (tenant, person, event) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let (key, wrapped) = keyring.new_person_key(tenant, person).unwrap();
        let sealed = key.seal(tenant, person, event, b"Ada").unwrap();
        let key = keyring.unwrap(tenant, person, &wrapped).unwrap();
        assert_eq!(*key.open(tenant, person, event, &sealed).unwrap(), b"Ada");
        for (tenant, person, event) in [(event, person, event), (tenant, event, event), (tenant, person, tenant)] {
            assert!(matches!(key.open(tenant, person, event, &sealed), Err(KeyError::Damaged(_))));
        }
        assert!(matches!(keyring.unwrap(tenant, event, &wrapped), Err(KeyError::Damaged(_))));
        assert!(matches!(super::tests::keyring(8).unwrap(tenant, person, &wrapped), Err(KeyError::Damaged(_))));
    }

    #[test]
    fn personal_claim_keys_differ_by_tenant_kind_and_key() {
        let keyring = keyring(7);
        let personal = ClaimKey::Personal("crm\u{1f}42".into());
        let one = keyring.claim_key(Uuid::from_u128(1), "prospect_ref", &personal);
        assert_eq!(one, keyring.claim_key(Uuid::from_u128(1), "prospect_ref", &personal));
        assert_ne!(one, keyring.claim_key(Uuid::from_u128(2), "prospect_ref", &personal));
        assert_ne!(one, keyring.claim_key(Uuid::from_u128(1), "email", &personal));
        assert!(!one.contains("42"));
        assert_eq!(keyring.claim_key(Uuid::nil(), "domain", &ClaimKey::Plain("a.example".into())), "a.example");
    }

    #[test]
    fn a_bad_key_file_is_refused_without_repeating_it() {
        let key = STANDARD.encode([1; 32]);
        for (text, says) in [
            (String::new(), "no line `wrap"),
            (format!("wrap k1 {key}"), "no line `index"),
            (format!("wrap k1 {}", STANDARD.encode([1; 31])), "line 1: not 32 bytes"),
            (format!("wrap k1 {key}\nwrap k1 {key}\n"), "line 2: a second key"),
            (format!("index {key}\nindex {key}\n"), "line 2: neither"),
            ("secret".into(), "line 1: neither"),
        ] {
            let error = Keyring::parse(&text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            assert!(!error.contains(&key) && !error.contains("secret"), "{error}");
        }
    }
}

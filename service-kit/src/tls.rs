//! What this program trusts as a client: the certificates of `PROSPECTUS_TLS_ROOT_FILE`, or the system's.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Which authorities are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roots {
    /// The file's, and none if it is not set: for connections that may have no TLS at all.
    OnlyFile,
    /// The file's, or the system's.
    FileOrSystem,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("PROSPECTUS_TLS_ROOT_FILE: {0}")]
    File(#[from] rustls::pki_types::pem::Error),
    /// What it holds cannot be used.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
}

/// The client's side of TLS.
///
/// # Errors
/// If the file of authorities cannot be read, or holds something else.
pub fn client_config(wanted: Roots) -> Result<rustls::ClientConfig, TlsError> {
    let mut roots = rustls::RootCertStore::empty();
    match std::env::var_os("PROSPECTUS_TLS_ROOT_FILE") {
        Some(path) => {
            for certificate in CertificateDer::pem_file_iter(&path)? {
                roots.add(certificate?)?;
            }
        }
        None if wanted == Roots::OnlyFile => {}
        None => {
            for certificate in rustls_native_certs::load_native_certs().certs {
                // The system's store may hold certificates that rustls does not take; the rest still count.
                let _ = roots.add(certificate);
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

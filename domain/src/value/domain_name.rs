//! Registrable domains: what keys a company (`fields.md`, "Which domain keys a company").

use std::borrow::Cow;
use std::net::Ipv4Addr;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};
use serde::{Deserialize, Serialize};

use super::text_value;
use crate::field::Schema;
use crate::field_error::Invalid;

/// The longest input that is looked at, in bytes: a URL's greatest length in four-byte characters.
const INPUT_BYTES_MAX: usize = 4 * 2048;

/// A registrable domain, lower case, in IDNA's ASCII form: `acme.co.uk`, never `www.acme.co.uk` or `co.uk`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Domain(String);

text_value!(Domain, Schema::formatted("hostname", 253));

/// A domain and the host that led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainOfHost {
    /// The registrable domain.
    pub domain: Domain,
    /// The host as it was given, lower case, in ASCII.
    pub host: String,
    /// What the host stood in.
    pub(super) form: Form,
}

/// What a host stood in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// After the `@` of an e-mail address.
    Address,
    /// In a URL that leads to a page of the host, or by itself.
    Page,
    /// In a URL that leads to the host as a whole, or alone.
    Host,
}

impl Domain {
    /// The registrable domain that an e-mail address, a URL or a host leads to.
    ///
    /// # Errors
    /// `empty`, `too_long`, `invalid_domain`, `ip_address` or `public_suffix`.
    pub fn parse(input: &str) -> Result<Self, Invalid> {
        DomainOfHost::parse(input).map(|found| found.domain)
    }
}

impl DomainOfHost {
    /// The registrable domain that an e-mail address, a URL or a host leads to, with that host.
    ///
    /// # Errors
    /// `empty`, `too_long`, `invalid_domain`, `ip_address` or `public_suffix`.
    pub fn parse(input: &str) -> Result<Self, Invalid> {
        Self::traced(input, &mut |_, _| {})
    }

    /// The same; `trace` is told of each step and what it led to.
    pub(super) fn traced(input: &str, trace: &mut dyn FnMut(&'static str, &str)) -> Result<Self, Invalid> {
        if input.len() > INPUT_BYTES_MAX {
            return Err(Invalid::too_long(INPUT_BYTES_MAX / 4));
        }
        let input = input.trim();
        if input.is_empty() {
            return Err(Invalid::empty());
        }
        trace("trimmed", input);
        let (given, form) = host_part(input)?;
        trace(if form == Form::Address { "after_last_at" } else { "host_of_url" }, given);
        let host = ascii_host(given)?;
        trace("ascii_lower_case", &host);
        let name = match host.strip_prefix("www.") {
            Some(rest) if rest.contains('.') => rest,
            _ => host.as_str(),
        };
        trace("without_www", name);
        let Some(domain) = psl::domain_str(name) else {
            return Err(Invalid::new(
                "public_suffix",
                "is a public suffix, under which domains are registered, not a domain",
            ));
        };
        trace("registrable_domain", domain);
        Ok(Self { domain: Domain(domain.to_owned()), host, form })
    }

    /// The domain without the host that led to it.
    #[must_use]
    pub fn without_host(mut self) -> Self {
        self.host.clone_from(&self.domain.0);
        self
    }

    /// Whether the host says more than the domain does; `www.` says nothing.
    pub fn is_sub_domain(&self) -> bool {
        self.host.strip_prefix("www.").unwrap_or(&self.host) != self.domain.0 && self.host != self.domain.0
    }
}

/// The host in IDNA's ASCII form, lower case, without a trailing dot.
pub(super) fn ascii_host(host: &str) -> Result<String, Invalid> {
    let host = host.strip_suffix(['.', '。']).unwrap_or(host);
    let ascii: Cow<'_, str> = Uts46::new()
        .to_ascii(host.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Verify)
        .map_err(|_| Invalid::new("invalid_domain", "must be a domain, a host, a URL or an e-mail address"))?;
    let last = ascii.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if numeric || ascii.parse::<Ipv4Addr>().is_ok() {
        return Err(ip_address());
    }
    Ok(ascii.into_owned())
}

/// What stands between scheme, user, port and path, and in what it stands.
fn host_part(input: &str) -> Result<(&str, Form), Invalid> {
    // `Name <name@example.com>`
    let input = match input.rsplit_once('<') {
        Some((_, inside)) if inside.ends_with('>') => &inside[..inside.len() - 1],
        _ => input,
    };
    let with_scheme = match input.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) => {
            Some(rest)
        }
        _ => input.strip_prefix("//"),
    };
    let page_or_host = |rest: &str| match rest.split_once(['/', '?', '#', '\\']) {
        Some((_, path)) if !path.trim_matches('/').is_empty() => Form::Page,
        _ => Form::Host,
    };
    let (authority, form) = if let Some(rest) = with_scheme {
        (before_path(rest), page_or_host(rest))
    } else if let Some(address) = strip_mailto(input) {
        (address.split('?').next().unwrap_or_default(), Form::Address)
    } else {
        // `medium.com/@acme` is a URL without its scheme; `a/b@acme.com` is an e-mail address.
        match before_path(input) {
            host if host.contains('.') && !host.contains('@') => (host, page_or_host(input)),
            _ if input.contains('@') => (input, Form::Address),
            _ => (input, page_or_host(input)),
        }
    };
    let host = authority.rsplit('@').next().unwrap_or_default().trim();
    if host.starts_with('[') {
        return Err(ip_address());
    }
    match host.split_once(':') {
        None => Ok((host, form)),
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => Ok((host, form)),
        Some(_) if host.parse::<std::net::Ipv6Addr>().is_ok() => Err(ip_address()),
        Some(_) => Err(Invalid::new("invalid_domain", "must be a domain, a host, a URL or an e-mail address")),
    }
}

fn before_path(rest: &str) -> &str {
    rest.split(['/', '?', '#', '\\']).next().unwrap_or_default()
}

fn strip_mailto(input: &str) -> Option<&str> {
    input.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("mailto:")).map(|_| &input[7..])
}

fn ip_address() -> Invalid {
    Invalid::new("ip_address", "must be a domain, not an IP address")
}

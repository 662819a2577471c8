//! Where an account is: `https://account.blob.core.windows.net`, another host of its own, or a path.

use std::net::IpAddr;

use ::http::Uri;

use crate::error::{Error, Result};

const OPERATION: &str = "find endpoint";

/// The place of one account.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// Without a slash at the end.
    url: String,
    origin_bytes: usize,
    secure: bool,
}

impl Endpoint {
    /// `url` was checked by the configuration: `http[s]://host[:port][/account]`.
    pub fn new(account: &str, url: Option<&str>) -> Result<Endpoint> {
        let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        if account.is_empty() || !account.bytes().all(plain) {
            let what = format!("{account:?} is no account's name: letters, digits and hyphens");
            return Err(Error::invalid(OPERATION, what));
        }
        let url = match url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("https://{account}.blob.core.windows.net"),
        };
        let uri = url.parse::<Uri>().ok().filter(|uri| uri.host().is_some());
        let uri = uri.ok_or_else(|| Error::invalid(OPERATION, "the endpoint is no address"))?;
        let host = uri.host().unwrap_or_default();
        let other = match uri.path().trim_matches('/') {
            "" => account_of_host(host).filter(|theirs| !is_of(theirs, account)),
            theirs => Some(theirs).filter(|theirs| *theirs != account),
        };
        if let Some(other) = other {
            let what =
                format!("the endpoint is of the account {other:?}, the URI names {account:?}");
            return Err(Error::invalid(OPERATION, what)
                .with_remedy("name the same account in both, as in az://account/container/key"));
        }
        let secure = uri.scheme_str() == Some("https");
        let has_path = !uri.path().trim_matches('/').is_empty();
        let origin_bytes = if has_path { url.len() - account.len() - 1 } else { url.len() };
        let url = match has_path || !names_no_account(host) {
            true => url,
            false => format!("{url}/{account}"),
        };
        Ok(Endpoint { url, origin_bytes, secure })
    }

    pub fn as_str(&self) -> &str {
        &self.url
    }

    /// Without the account's path.
    pub fn origin(&self) -> &str {
        &self.url[..self.origin_bytes]
    }

    pub fn is_secure(&self) -> bool {
        self.secure
    }
}

/// The account that a host of Azure's own form is of. Source: Azure Storage, "Storage account overview",
/// endpoints.
fn account_of_host(host: &str) -> Option<&str> {
    let (account, rest) = host.split_once('.')?;
    let is_azure = rest.starts_with("blob.") || rest.contains(".blob.");
    is_azure.then_some(account)
}

/// The second place of an account that is kept twice is one of its own.
fn is_of(host_account: &str, account: &str) -> bool {
    let host_account = host_account.to_ascii_lowercase();
    host_account == account || host_account.strip_suffix("-secondary") == Some(account)
}

/// Whether a host is an address or a bare name, which can be of no account.
fn names_no_account(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    !host.contains('.') || bare.parse::<IpAddr>().is_ok()
}

//! How servers are reached: timeouts, attempts, certificates and proxies.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::Secret;
use crate::limits::{ATTEMPTS_DEFAULT, CONNECT_TIMEOUT_DEFAULT, RESPONSE_TIMEOUT_DEFAULT};

/// How servers are reached; the same for all object stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
    pub(crate) attempts_max: u32,
    pub(crate) ca_file: Option<PathBuf>,
    /// May carry a password.
    pub(crate) proxy: Option<Secret>,
    pub(crate) no_proxy: Option<String>,
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig {
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            response_timeout: RESPONSE_TIMEOUT_DEFAULT,
            attempts_max: ATTEMPTS_DEFAULT,
            ca_file: None,
            proxy: None,
            no_proxy: None,
        }
    }
}

impl HttpConfig {
    /// The defaults: no proxy, the root certificates of Mozilla.
    pub fn new() -> HttpConfig {
        HttpConfig::default()
    }

    /// Longest wait for a connection, TLS included. Default 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Longest time a connection may stand still, while it sends or before and within an answer, until
    /// the request is tried again on another one. Default 60 s; a request as a whole ends with
    /// [`Config::timeout`](crate::Config::timeout).
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// How often a request is tried, at least 1. Default 10: with the pauses between them about half a
    /// minute.
    #[must_use]
    pub fn attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = attempts;
        self
    }

    /// A PEM file with the certificates of the authorities to trust, instead of the usual ones.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// A proxy, `http://[user:password@]host:port` or `https://...`; reached by CONNECT.
    #[must_use]
    pub fn proxy(mut self, url: &str) -> Self {
        self.proxy = Some(Secret::new(url));
        self
    }

    /// Hosts reached without the proxy: names separated by commas, each exact, `.suffix` or `*.suffix`;
    /// `*` is all.
    #[must_use]
    pub fn no_proxy(mut self, hosts: &str) -> Self {
        self.no_proxy = Some(hosts.to_owned());
        self
    }
}

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
    /// For servers reached by https. May carry a password.
    pub(crate) proxy: Option<Secret>,
    /// For servers reached by http. May carry a password.
    pub(crate) proxy_http: Option<Secret>,
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
            proxy_http: None,
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

    /// How often a request is tried, at least 1. Default 10: with the random pauses between them some
    /// twenty seconds. A server that was reached before and refuses connections is tried until
    /// [`Config::timeout`](crate::Config::timeout): it is being started again.
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

    /// A proxy for all servers, `http://[user:password@]host:port` or `https://...`; reached by CONNECT.
    /// It replaces the environment's proxies.
    #[must_use]
    pub fn proxy(mut self, url: &str) -> Self {
        self.proxy = Some(Secret::new(url));
        self.proxy_http = self.proxy.clone();
        self
    }

    /// Hosts reached without the proxy: names separated by commas, each exact, `.suffix` or `*.suffix`;
    /// `*` is all.
    #[must_use]
    pub fn no_proxy(mut self, hosts: &str) -> Self {
        self.no_proxy = Some(hosts.to_owned());
        self
    }

    /// The proxy for a server reached by https or by http, unless `no_proxy` names its host.
    pub(crate) fn proxy_for(&self, https: bool) -> Option<&Secret> {
        if https { self.proxy.as_ref() } else { self.proxy_http.as_ref() }
    }

    /// What is set here, and where nothing is, what `environment` says.
    pub(super) fn or(mut self, environment: HttpConfig) -> HttpConfig {
        if self.proxy.is_none() && self.proxy_http.is_none() {
            self.proxy = environment.proxy;
            self.proxy_http = environment.proxy_http;
        }
        self.ca_file = self.ca_file.or(environment.ca_file);
        self.no_proxy = self.no_proxy.or(environment.no_proxy);
        self
    }

    /// Every setting that cannot be used.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.connect_timeout.is_zero() {
            problems.push("connect_timeout is zero".to_owned());
        }
        if self.response_timeout.is_zero() {
            problems.push("response_timeout is zero".to_owned());
        }
        if self.attempts_max == 0 {
            problems.push("attempts_max 0 is less than 1".to_owned());
        }
        let proxies = [&self.proxy, &self.proxy_http].into_iter().flatten();
        if let Some(problem) = proxies.filter_map(|url| origin_problem(url.expose(), true)).next() {
            problems.push(format!("proxy {problem}"));
        }
        problems
    }
}

/// What is wrong with a server's address. The address is not in it, since it may hold a password.
pub(crate) fn origin_problem(url: &str, userinfo_allowed: bool) -> Option<&'static str> {
    base_problem(url, userinfo_allowed).or_else(|| {
        let path = url.parse::<::http::Uri>().is_ok_and(|uri| !["", "/"].contains(&uri.path()));
        path.then_some("has a path: only http[s]://host[:port] is meant")
    })
}

/// The same for a server in whose addresses the account may stand.
pub(crate) fn account_origin_problem(url: &str) -> Option<&'static str> {
    base_problem(url, false).or_else(|| {
        let uri = url.parse::<::http::Uri>().ok()?;
        let account = uri.path().trim_matches('/');
        let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        (!account.bytes().all(plain)).then_some("has a path that is no account's name")
    })
}

fn base_problem(url: &str, userinfo_allowed: bool) -> Option<&'static str> {
    let Ok(uri) = url.parse::<::http::Uri>() else { return Some(NOT_AN_ORIGIN) };
    let scheme = uri.scheme_str().unwrap_or_default();
    let Some(authority) = uri.authority() else { return Some(NOT_AN_ORIGIN) };
    if !["http", "https"].contains(&scheme) {
        return Some("is neither http:// nor https://");
    }
    let (userinfo, host_port) = match authority.as_str().rsplit_once('@') {
        Some((userinfo, host_port)) => (Some(userinfo), host_port),
        None => (None, authority.as_str()),
    };
    if userinfo.is_some() && !userinfo_allowed {
        return Some("holds a user or password: credentials are given apart");
    }
    let host = authority.host();
    let port = host_port.strip_prefix(host).unwrap_or("?");
    let port_fits =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    if host.is_empty() || !port_fits {
        return Some(NOT_AN_ORIGIN);
    }
    (uri.query().is_some() || url.contains('#')).then_some("has a query or a fragment")
}

const NOT_AN_ORIGIN: &str = "is not http[s]://host[:port]";

/// The address without the slashes that may end it.
pub(crate) fn trim_origin(url: &str) -> String {
    url.trim_end_matches('/').to_owned()
}

/// What is wrong with a region: it stands in hosts' names and in what is signed.
pub(crate) fn region_problem(region: &str) -> Option<&'static str> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    let fits = (1..=REGION_BYTES_MAX).contains(&region.len()) && region.bytes().all(plain);
    (!fits).then_some("is not a region: 1 to 63 letters, digits, `-` and `_`")
}

/// Longest label of a host's name. Source: RFC 1035, section 2.3.4.
const REGION_BYTES_MAX: usize = 63;

//! How `az://` is reached and what is asked of it.

use std::path::PathBuf;

use crate::config::Secret;
use crate::config::connection::ConnectionString;
use crate::config::http::{account_origin_problem, trim_origin};

/// How the server is made to prove that it stores our bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum AzureIntegrity {
    /// A CRC-64 with every request; MD5 from then on where a server refuses it.
    #[default]
    Auto,
    /// A CRC-64; a server that refuses it is an error.
    Crc64,
    /// MD5 from the start: for emulators and older services.
    Md5,
    /// Neither: the server proves nothing.
    None,
}

/// How `az://` is reached. What requests are authorized with comes from
/// [`account_key`](AzureConfig::account_key), [`sas_token`](AzureConfig::sas_token),
/// [`connection_string`](AzureConfig::connection_string), [`bearer_token`](AzureConfig::bearer_token) or
/// [`client_secret`](AzureConfig::client_secret), one of them; and, only if the builder took the
/// [environment](crate::ConfigBuilder::env), from a connection string, key or token of the environment, a
/// client's secret, workload identity and managed identity, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AzureConfig {
    // `None` where nothing was said, so that the environment may say it.
    pub(crate) endpoint: Option<String>,
    pub(crate) credentials: Vec<AzureCredentials>,
    pub(crate) anonymous: Option<bool>,
    pub(crate) integrity: Option<AzureIntegrity>,
    pub(crate) environment: Option<AzureEnvironment>,
}

/// Credentials given by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AzureCredentials {
    AccountKey(Secret),
    SasToken(Secret),
    /// The inner error says why it cannot be used.
    ConnectionString(Result<ConnectionString, String>),
    BearerToken(Secret),
    ClientSecret(ClientSecret),
}

/// An application that asks for tokens with a secret of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientSecret {
    pub tenant_id: String,
    pub client_id: String,
    pub client_secret: Secret,
}

/// What the environment says about Azure, read once (config/env.rs).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AzureEnvironment {
    pub connection_string: Option<ConnectionString>,
    pub account: Option<String>,
    pub key: Option<Secret>,
    pub sas_token: Option<Secret>,
    pub tenant_id: Option<String>,
    pub client_id: Option<String>,
    pub client_secret: Option<Secret>,
    pub federated_token_file: Option<PathBuf>,
    /// Where tokens are to be had, `https://host[:port]`.
    pub authority: Option<String>,
    /// Of App Service and its kin: where managed identity is asked, and the secret that it wants.
    pub identity_endpoint: Option<Secret>,
    pub identity_header: Option<Secret>,
    /// Where the machine's metadata is, `http://host[:port]`.
    pub metadata_endpoint: Option<String>,
}

impl AzureConfig {
    /// The defaults: the public cloud, credentials found by themselves.
    pub fn new() -> AzureConfig {
        AzureConfig::default()
    }

    /// The server, instead of `https://account.blob.core.windows.net`: `http[s]://host[:port]` where the
    /// host is the account's own, `http[s]://host[:port]/account` where accounts stand in the path. A host
    /// that is an address or has no dot is one of the latter also without the account.
    #[must_use]
    pub fn endpoint(mut self, url: &str) -> Self {
        self.endpoint = Some(url.to_owned());
        self
    }

    /// The account's key, in base64, to sign requests with.
    #[must_use]
    pub fn account_key(self, key: &str) -> Self {
        self.with(AzureCredentials::AccountKey(Secret::new(key)))
    }

    /// A shared access signature, as the query `sv=...&sig=...`. It stands in the addresses of requests:
    /// a logger that takes the level trace of the target `ureq` writes it down.
    #[must_use]
    pub fn sas_token(self, token: &str) -> Self {
        self.with(AzureCredentials::SasToken(Secret::new(token)))
    }

    /// A connection string; it may also name the endpoint.
    #[must_use]
    pub fn connection_string(self, text: &str) -> Self {
        self.with(AzureCredentials::ConnectionString(ConnectionString::parse(text)))
    }

    /// A token of Microsoft Entra ID for `https://storage.azure.com/`. It is sent over https alone, and
    /// not renewed.
    #[must_use]
    pub fn bearer_token(self, token: &str) -> Self {
        self.with(AzureCredentials::BearerToken(Secret::new(token)))
    }

    /// An application that asks Microsoft Entra ID for tokens with a secret.
    #[must_use]
    pub fn client_secret(self, tenant_id: &str, client_id: &str, client_secret: &str) -> Self {
        self.with(AzureCredentials::ClientSecret(ClientSecret {
            tenant_id: tenant_id.to_owned(),
            client_id: client_id.to_owned(),
            client_secret: Secret::new(client_secret),
        }))
    }

    /// Requests are not authorized: for public containers.
    #[must_use]
    pub fn anonymous(mut self, anonymous: bool) -> Self {
        self.anonymous = Some(anonymous);
        self
    }

    /// How the server proves that it stores our bytes. Default: auto.
    #[must_use]
    pub fn integrity(mut self, integrity: AzureIntegrity) -> Self {
        self.integrity = Some(integrity);
        self
    }

    /// Of one kind of credentials the last is meant.
    fn with(mut self, credentials: AzureCredentials) -> Self {
        let kind = std::mem::discriminant(&credentials);
        self.credentials.retain(|other| std::mem::discriminant(other) != kind);
        self.credentials.push(credentials);
        self
    }

    /// Whether it is said what requests are authorized with.
    pub(super) fn says_who(&self) -> bool {
        !self.credentials.is_empty() || self.anonymous == Some(true)
    }

    /// What is set here, and where nothing is, what `environment` says.
    pub(super) fn or(self, environment: AzureConfig) -> AzureConfig {
        // Credentials that were given are meant to be used, whatever the environment says.
        let given = (!self.credentials.is_empty()).then_some(false);
        let named = self.credentials.iter().any(AzureCredentials::names_endpoint);
        let endpoint_of_environment = environment.endpoint.filter(|_| !named);
        AzureConfig {
            endpoint: self.endpoint.or(endpoint_of_environment),
            credentials: self.credentials,
            anonymous: self.anonymous.or(given).or(environment.anonymous),
            integrity: self.integrity.or(environment.integrity),
            environment: self.environment.or(environment.environment),
        }
    }

    /// Every setting that cannot be used; what can be is made uniform.
    pub(super) fn problems(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(url) = &mut self.endpoint {
            match account_origin_problem(url) {
                None => *url = trim_origin(url),
                Some(problem) => problems.push(format!("azure endpoint {problem}")),
            }
        }
        if self.credentials.len() > 1 {
            let names: Vec<_> = self.credentials.iter().map(AzureCredentials::name).collect();
            problems.push(format!("azure has {}: give one of them", names.join(" and ")));
        }
        if self.anonymous == Some(true) && !self.credentials.is_empty() {
            problems.push("azure is anonymous and has credentials".to_owned());
        }
        problems.extend(self.credentials.iter().filter_map(AzureCredentials::problem));
        problems
    }
}

impl AzureCredentials {
    fn name(&self) -> &'static str {
        match self {
            AzureCredentials::AccountKey(_) => "account_key",
            AzureCredentials::SasToken(_) => "sas_token",
            AzureCredentials::ConnectionString(_) => "connection_string",
            AzureCredentials::BearerToken(_) => "bearer_token",
            AzureCredentials::ClientSecret(_) => "client_secret",
        }
    }

    fn names_endpoint(&self) -> bool {
        matches!(self, AzureCredentials::ConnectionString(Ok(parsed)) if parsed.endpoint.is_some())
    }

    /// Why they cannot be used, without the secret.
    fn problem(&self) -> Option<String> {
        let empty = match self {
            AzureCredentials::AccountKey(secret)
            | AzureCredentials::SasToken(secret)
            | AzureCredentials::BearerToken(secret) => secret.expose().is_empty(),
            AzureCredentials::ConnectionString(Err(problem)) => {
                return Some(format!("azure connection_string {problem}"));
            }
            AzureCredentials::ConnectionString(Ok(_)) => false,
            AzureCredentials::ClientSecret(client) => {
                client.tenant_id.is_empty()
                    || client.client_id.is_empty()
                    || client.client_secret.expose().is_empty()
            }
        };
        empty.then(|| format!("azure {} is empty", self.name()))
    }
}

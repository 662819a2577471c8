//! How `s3://` is reached and what is asked of it.

use std::path::PathBuf;

use crate::config::Secret;
use crate::config::http::{origin_problem, region_problem, trim_origin};

/// How the server is made to prove that it stores our bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum S3Integrity {
    /// The writer's checksum with every request; signed SHA-256 payloads from then on where a server
    /// does not confirm it.
    #[default]
    Auto,
    /// The writer's checksum; a server that does not confirm it is an error.
    Checksum,
    /// Signed SHA-256 payloads from the start.
    Sha256,
    /// Neither: the server proves nothing.
    None,
}

/// What to do where a server ignores the condition of a create-only write (`If-None-Match: *`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CreateOnlyPolicy {
    /// Refuse with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): two writers could
    /// otherwise replace each other unseen.
    #[default]
    Require,
    /// Look for the object first, then write, and say so in the report: for stores with one writer.
    Warn,
}

/// How `s3://` is reached. Credentials come, in this order, from [`credentials`](S3Config::credentials),
/// and, only if the builder took the [environment](crate::ConfigBuilder::env), from the environment, the
/// profile files, web identity, the container's endpoint and the instance's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct S3Config {
    // `None` where nothing was said, so that the environment may say it.
    pub(crate) endpoint: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) path_style: Option<bool>,
    pub(crate) credentials: Option<StaticCredentials>,
    pub(crate) anonymous: Option<bool>,
    pub(crate) integrity: Option<S3Integrity>,
    pub(crate) create_only: Option<CreateOnlyPolicy>,
    pub(crate) environment: Option<AwsEnvironment>,
}

/// Keys given by the caller or the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StaticCredentials {
    pub access_key_id: String,
    pub secret_access_key: Secret,
    pub session_token: Option<Secret>,
}

/// What the environment says about AWS, read once (config/env.rs).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AwsEnvironment {
    pub credentials: Option<StaticCredentials>,
    /// The variable that is missing where another one of the keys is there.
    pub credentials_lack: Option<&'static str>,
    pub profile: Option<String>,
    pub credentials_file: Option<PathBuf>,
    pub config_file: Option<PathBuf>,
    pub home: Option<PathBuf>,
    pub sts_endpoint: Option<String>,
    pub web_identity_token_file: Option<PathBuf>,
    pub role_arn: Option<String>,
    pub role_session_name: Option<String>,
    pub container: ContainerEnvironment,
    pub metadata_disabled: bool,
    pub metadata_endpoint: Option<String>,
}

/// Where a container's credentials are to be had. The addresses count as secrets: whoever knows them
/// gets the keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ContainerEnvironment {
    pub full_uri: Option<Secret>,
    pub relative_uri: Option<Secret>,
    pub token: Option<Secret>,
    pub token_file: Option<PathBuf>,
}

impl S3Config {
    /// The defaults: AWS, region and credentials found by themselves.
    pub fn new() -> S3Config {
        S3Config::default()
    }

    /// The server, `http[s]://host[:port]`, instead of AWS.
    #[must_use]
    pub fn endpoint(mut self, url: &str) -> Self {
        self.endpoint = Some(url.to_owned());
        self
    }

    /// The region requests are signed for. Default: what the environment, the profile or the server's
    /// answer says, else `us-east-1`.
    #[must_use]
    pub fn region(mut self, region: &str) -> Self {
        self.region = Some(region.to_owned());
        self
    }

    /// Whether the bucket stands in the path rather than in the host's name. Default: with an endpoint
    /// of one's own yes, on AWS only for buckets that cannot stand in a host's name.
    #[must_use]
    pub fn path_style(mut self, path_style: bool) -> Self {
        self.path_style = Some(path_style);
        self
    }

    /// The keys to sign with, and the session token where they are temporary.
    #[must_use]
    pub fn credentials(
        mut self,
        access_key_id: &str,
        secret_access_key: &str,
        session_token: Option<&str>,
    ) -> Self {
        self.credentials = Some(StaticCredentials {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: Secret::new(secret_access_key),
            session_token: session_token.map(Secret::new),
        });
        self
    }

    /// Requests are not signed: for public buckets.
    #[must_use]
    pub fn anonymous(mut self, anonymous: bool) -> Self {
        self.anonymous = Some(anonymous);
        self
    }

    /// How the server proves that it stores our bytes. Default: auto.
    #[must_use]
    pub fn integrity(mut self, integrity: S3Integrity) -> Self {
        self.integrity = Some(integrity);
        self
    }

    /// What to do where a server ignores the condition of a create-only write. Default: require.
    #[must_use]
    pub fn create_only(mut self, policy: CreateOnlyPolicy) -> Self {
        self.create_only = Some(policy);
        self
    }

    /// What is set here, and where nothing is, what `environment` says.
    pub(super) fn or(self, environment: S3Config) -> S3Config {
        // Keys that were given are meant to be used, whatever the environment says.
        let keys_given = self.credentials.is_some().then_some(false);
        S3Config {
            endpoint: self.endpoint.or(environment.endpoint),
            region: self.region.or(environment.region),
            path_style: self.path_style.or(environment.path_style),
            credentials: self.credentials.or(environment.credentials),
            anonymous: self.anonymous.or(keys_given).or(environment.anonymous),
            integrity: self.integrity.or(environment.integrity),
            create_only: self.create_only.or(environment.create_only),
            environment: self.environment.or(environment.environment),
        }
    }

    /// Every setting that cannot be used; what can be is made uniform.
    pub(super) fn problems(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(url) = &mut self.endpoint {
            match origin_problem(url, false) {
                None => *url = trim_origin(url),
                Some(problem) => problems.push(format!("s3 endpoint {problem}")),
            }
        }
        if let Some(problem) = self.region.as_deref().and_then(region_problem) {
            problems.push(format!("s3 region {problem}"));
        }
        if let Some(keys) = &self.credentials
            && (keys.access_key_id.is_empty() || keys.secret_access_key.expose().is_empty())
        {
            problems.push("s3 credentials are empty".to_owned());
        }
        problems
    }
}

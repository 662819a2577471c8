//! The only reader of the environment. What it finds becomes plain values of the configuration.
//!
//! `SYNCLINE_*` is ours: a value that cannot be used is an error at once. All other variables may be
//! meant for other programs, so an unusable one is an error only where a store is opened that asks for it
//! ([`Config::check_servers`](crate::config::Config::check_servers)): files are reached without them.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::http::{account_origin_problem, origin_problem, region_problem, trim_origin};
use crate::config::s3::ContainerEnvironment;
use crate::config::{
    AwsEnvironment, AzureConfig, AzureEnvironment, AzureIntegrity, ConfigBuilder, ConnectionString,
    CreateOnlyPolicy, HttpConfig, S3Config, S3Integrity, Secret, StaticCredentials, parse_bytes,
};
use crate::error::{Error, Result};

/// The kinds of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    S3,
    Azure,
}

/// A setting that the environment may give and the builder may override.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    Endpoint,
    Region,
    AzureEndpoint,
    AzureCredentials,
    Proxy,
    /// What no setting overrides.
    Aws,
    Azure,
    Other,
}

impl Setting {
    /// That of a variable which no setting overrides.
    fn of_variable(name: &str) -> Setting {
        match name.split('_').next() {
            Some("AWS") => Setting::Aws,
            Some("AZURE" | "IDENTITY") => Setting::Azure,
            _ => Setting::Other,
        }
    }

    /// Whether a store of this kind asks for it.
    pub fn concerns(self, server: Server) -> bool {
        match self {
            Setting::Endpoint | Setting::Region | Setting::Aws => server == Server::S3,
            Setting::AzureEndpoint | Setting::AzureCredentials | Setting::Azure => {
                server == Server::Azure
            }
            Setting::Proxy | Setting::Other => true,
        }
    }
}

/// What the environment says about servers. It waits here for `build`, where explicit settings win,
/// whatever the order of the calls.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerEnvironment {
    pub http: HttpConfig,
    pub s3: S3Config,
    pub azure: AzureConfig,
    /// Values that cannot be used, each with its variable.
    pub wrong: Vec<(Setting, String)>,
}

/// Looks a variable up: in the process, or in a test's table.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

impl ConfigBuilder {
    /// Takes what the environment sets; what this builder was told stays, in whatever order it comes.
    ///
    /// Read are `SYNCLINE_IO_THREADS`, `SYNCLINE_COMPRESSION_THREADS`, `SYNCLINE_PART_SIZE`, `SYNCLINE_MEMORY` (sizes as in
    /// [`parse_bytes`]), `SYNCLINE_S3_INTEGRITY` (`auto`, `checksum`, `sha256`, `none`),
    /// `SYNCLINE_S3_CREATE_ONLY` (`require`, `warn`), `SYNCLINE_S3_PATH_STYLE` and
    /// `SYNCLINE_S3_ANONYMOUS` (`true`, `false`); the usual `AWS_*` variables for credentials, profile,
    /// region, endpoints (`AWS_ENDPOINT_URL_S3` before `AWS_ENDPOINT_URL`) and the `AWS_CA_BUNDLE`;
    /// `SYNCLINE_AZ_INTEGRITY` (`auto`, `crc64`, `md5`, `none`) and `SYNCLINE_AZ_ANONYMOUS` (`true`, `false`);
    /// the usual `AZURE_STORAGE_*` variables for connection string, account, key, SAS token and endpoint
    /// (`AZURE_STORAGE_BLOB_ENDPOINT` before `AZURE_STORAGE_ENDPOINT`) and the `AZURE_*` and `IDENTITY_*` ones
    /// of client secret, workload identity and managed identity; and
    /// `HTTPS_PROXY`, `http_proxy`, `ALL_PROXY` and `NO_PROXY`. Variables that are not ours may be meant for
    /// other programs: an unusable one is told when a store is opened that asks for it.
    ///
    /// # Errors
    /// `InvalidInput` naming the variable whose value is not usable.
    pub fn env(self) -> Result<Self> {
        self.env_from(&|name| std::env::var_os(name))
    }

    fn env_from(mut self, lookup: Lookup<'_>) -> Result<Self> {
        let threads = own(lookup, "SYNCLINE_IO_THREADS", |text| text.parse().ok())?;
        let compression_threads =
            own(lookup, "SYNCLINE_COMPRESSION_THREADS", |text| text.parse().ok())?;
        let part = own(lookup, "SYNCLINE_PART_SIZE", |text| {
            parse_bytes(text).ok().and_then(|bytes| usize::try_from(bytes).ok())
        })?;
        let memory = own(lookup, "SYNCLINE_MEMORY", |text| parse_bytes(text).ok())?;
        self.io_threads = self.io_threads.or(threads);
        self.compression_threads = self.compression_threads.or(compression_threads);
        self.part_bytes = self.part_bytes.or(part);
        self.memory_bytes_max = self.memory_bytes_max.or(memory);
        let mut foreign = Foreign { lookup, wrong: Vec::new() };
        let http = foreign.http();
        let s3 = S3Config {
            integrity: own(lookup, "SYNCLINE_S3_INTEGRITY", integrity)?,
            create_only: own(lookup, "SYNCLINE_S3_CREATE_ONLY", create_only)?,
            path_style: own(lookup, "SYNCLINE_S3_PATH_STYLE", yes_or_no)?,
            anonymous: own(lookup, "SYNCLINE_S3_ANONYMOUS", yes_or_no)?,
            endpoint: foreign.origin(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
            region: foreign.region(),
            credentials: None,
            environment: Some(foreign.aws()),
        };
        let azure = AzureConfig {
            endpoint: foreign.account_origin(),
            credentials: Vec::new(),
            anonymous: own(lookup, "SYNCLINE_AZ_ANONYMOUS", yes_or_no)?,
            integrity: own(lookup, "SYNCLINE_AZ_INTEGRITY", azure_integrity)?,
            environment: Some(foreign.azure()),
        };
        self.environment = Some(ServerEnvironment { http, s3, azure, wrong: foreign.wrong });
        Ok(self)
    }
}

/// One of our own variables.
fn own<T>(lookup: Lookup<'_>, name: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
    let Some(value) = lookup(name) else { return Ok(None) };
    match value.to_str().and_then(parse) {
        Some(value) => Ok(Some(value)),
        None => Err(Error::invalid("configure", format!("{name}={value:?} is not usable"))),
    }
}

fn integrity(text: &str) -> Option<S3Integrity> {
    Some(match text {
        "auto" => S3Integrity::Auto,
        "checksum" => S3Integrity::Checksum,
        "sha256" => S3Integrity::Sha256,
        "none" => S3Integrity::None,
        _ => return None,
    })
}

fn azure_integrity(text: &str) -> Option<AzureIntegrity> {
    Some(match text {
        "auto" => AzureIntegrity::Auto,
        "crc64" => AzureIntegrity::Crc64,
        "md5" => AzureIntegrity::Md5,
        "none" => AzureIntegrity::None,
        _ => return None,
    })
}

fn create_only(text: &str) -> Option<CreateOnlyPolicy> {
    Some(match text {
        "require" => CreateOnlyPolicy::Require,
        "warn" => CreateOnlyPolicy::Warn,
        _ => return None,
    })
}

fn yes_or_no(text: &str) -> Option<bool> {
    Some(match text {
        "true" | "1" => true,
        "false" | "0" => false,
        _ => return None,
    })
}

/// Reads variables that are not ours. An empty one counts as absent, as the programs that own them
/// have it; a value is never quoted, since it may hold a password.
struct Foreign<'a> {
    lookup: Lookup<'a>,
    wrong: Vec<(Setting, String)>,
}

impl Foreign<'_> {
    fn http(&mut self) -> HttpConfig {
        let all = self.proxy(&["all_proxy", "ALL_PROXY"]);
        HttpConfig {
            ca_file: self.path("AWS_CA_BUNDLE"),
            proxy: self.proxy(&["https_proxy", "HTTPS_PROXY"]).or_else(|| all.clone()),
            // In upper case a server program's client could set it by a header (`Proxy:` in CGI).
            proxy_http: self.proxy(&["http_proxy"]).or(all),
            no_proxy: self.first_text(&["no_proxy", "NO_PROXY"]).map(|(_, hosts)| hosts),
            ..HttpConfig::default()
        }
    }

    fn aws(&mut self) -> AwsEnvironment {
        let (credentials, credentials_lack) = self.keys();
        AwsEnvironment {
            credentials,
            credentials_lack,
            profile: self.text("AWS_PROFILE"),
            credentials_file: self.path("AWS_SHARED_CREDENTIALS_FILE"),
            config_file: self.path("AWS_CONFIG_FILE"),
            home: self.path("HOME"),
            sts_endpoint: self.origin(&["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"]),
            web_identity_token_file: self.path("AWS_WEB_IDENTITY_TOKEN_FILE"),
            role_arn: self.text("AWS_ROLE_ARN"),
            role_session_name: self.text("AWS_ROLE_SESSION_NAME"),
            container: ContainerEnvironment {
                full_uri: self.secret("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
                relative_uri: self.secret("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
                token: self.secret("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
                token_file: self.path("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
            },
            metadata_disabled: self
                .text("AWS_EC2_METADATA_DISABLED")
                .is_some_and(|text| text.eq_ignore_ascii_case("true")),
            metadata_endpoint: self.origin(&["AWS_EC2_METADATA_SERVICE_ENDPOINT"]),
        }
    }

    fn azure(&mut self) -> AzureEnvironment {
        AzureEnvironment {
            connection_string: self.connection_string(),
            account: self.text("AZURE_STORAGE_ACCOUNT"),
            key: self.secret("AZURE_STORAGE_KEY"),
            sas_token: self.secret("AZURE_STORAGE_SAS_TOKEN"),
            tenant_id: self.text("AZURE_TENANT_ID"),
            client_id: self.text("AZURE_CLIENT_ID"),
            client_secret: self.secret("AZURE_CLIENT_SECRET"),
            federated_token_file: self.path("AZURE_FEDERATED_TOKEN_FILE"),
            authority: self.authority(),
            identity_endpoint: self.secret("IDENTITY_ENDPOINT"),
            identity_header: self.secret("IDENTITY_HEADER"),
            metadata_endpoint: self.origin(&["AZURE_POD_IDENTITY_AUTHORITY_HOST"]),
        }
    }

    fn connection_string(&mut self) -> Option<ConnectionString> {
        const NAME: &str = "AZURE_STORAGE_CONNECTION_STRING";
        match ConnectionString::parse(&self.text(NAME)?) {
            Ok(parsed) => Some(parsed),
            Err(problem) => self.reject(Setting::AzureCredentials, NAME, &problem),
        }
    }

    /// Where an account's blobs are.
    fn account_origin(&mut self) -> Option<String> {
        let names = ["AZURE_STORAGE_BLOB_ENDPOINT", "AZURE_STORAGE_ENDPOINT"];
        let (name, url) = self.first_text(&names)?;
        match account_origin_problem(&url) {
            None => Some(trim_origin(&url)),
            Some(problem) => self.reject(Setting::AzureEndpoint, name, problem),
        }
    }

    /// Where tokens are asked for; without a scheme it is meant so, as the programs have it that own it.
    fn authority(&mut self) -> Option<String> {
        const NAME: &str = "AZURE_AUTHORITY_HOST";
        let text = self.text(NAME)?;
        let url = if text.contains("://") { text } else { format!("https://{text}") };
        match origin_problem(&url, false) {
            None if url
                .parse::<::http::Uri>()
                .is_ok_and(|uri| uri.scheme_str() == Some("https")) =>
            {
                Some(trim_origin(&url))
            }
            None => self.reject(Setting::Azure, NAME, "is not https://: secrets are sent there"),
            Some(problem) => self.reject(Setting::Azure, NAME, problem),
        }
    }

    /// The keys, or the variable that is missing to one that is there.
    fn keys(&mut self) -> (Option<StaticCredentials>, Option<&'static str>) {
        const ID: &str = "AWS_ACCESS_KEY_ID";
        const KEY: &str = "AWS_SECRET_ACCESS_KEY";
        let session_token = self.secret("AWS_SESSION_TOKEN");
        match (self.text(ID), self.secret(KEY)) {
            (Some(access_key_id), Some(secret_access_key)) => {
                let keys = StaticCredentials { access_key_id, secret_access_key, session_token };
                (Some(keys), None)
            }
            (Some(_), None) => (None, Some(KEY)),
            (None, Some(_)) => (None, Some(ID)),
            (None, None) => (None, None),
        }
    }

    fn text(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name).filter(|value| !value.is_empty())?;
        let text = value.into_string().ok();
        if text.is_none() {
            self.wrong.push((Setting::of_variable(name), format!("{name} is not UTF-8")));
        }
        text
    }

    fn secret(&mut self, name: &str) -> Option<Secret> {
        self.text(name).map(|text| Secret::new(&text))
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        (self.lookup)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// The first of these variables that is set.
    fn first_text(&mut self, names: &[&'static str]) -> Option<(&'static str, String)> {
        names.iter().find_map(|name| Some((*name, self.text(name)?)))
    }

    /// A server's address.
    fn origin(&mut self, names: &[&'static str]) -> Option<String> {
        let (name, url) = self.first_text(names)?;
        let setting = if name.starts_with("AWS_ENDPOINT_URL") && name != "AWS_ENDPOINT_URL_STS" {
            Setting::Endpoint
        } else {
            Setting::of_variable(name)
        };
        match origin_problem(&url, false) {
            None => Some(trim_origin(&url)),
            Some(problem) => self.reject(setting, name, problem),
        }
    }

    fn region(&mut self) -> Option<String> {
        let (name, region) = self.first_text(&["AWS_REGION", "AWS_DEFAULT_REGION"])?;
        match region_problem(&region) {
            None => Some(region),
            Some(problem) => self.reject(Setting::Region, name, problem),
        }
    }

    /// A proxy; without a scheme it is one that speaks HTTP, as curl has it.
    fn proxy(&mut self, names: &[&'static str]) -> Option<Secret> {
        let (name, text) = self.first_text(names)?;
        let url = if text.contains("://") { text } else { format!("http://{text}") };
        match origin_problem(&url, true) {
            None => Some(Secret::new(&trim_origin(&url))),
            Some(problem) => self.reject(Setting::Proxy, name, problem),
        }
    }

    fn reject<T>(&mut self, setting: Setting, name: &str, problem: &str) -> Option<T> {
        let what = (setting, format!("{name} {problem}"));
        if !self.wrong.contains(&what) {
            self.wrong.push(what);
        }
        None
    }
}

#[cfg(test)]
mod tests;

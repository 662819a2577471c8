//! What requests are authorized with: the account's key, a shared access signature, or a bearer token.
//!
//! Explicit credentials, a connection string, key or SAS token of the environment, a client's secret,
//! workload identity, managed identity. A source that cannot apply is passed over; one that applies and
//! fails is an error that names it, so that nobody works in another's name than was meant.
//!
//! Bearer tokens open every store of who they were given to: they are neither asked for nor sent unless the
//! endpoint is https. No error of this folder is `NotFound`, and none quotes an answer or a file.

mod endpoint;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod identity;
mod sas;
mod sign;
#[cfg(test)]
mod sign_tests;
#[cfg(test)]
mod tests;
mod token;

use std::time::SystemTime;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::backend::http::{Fetched, OPERATION, Refreshing, Route, Transport, format_http_date};
use crate::config::{
    AzureConfig, AzureCredentials, AzureEnvironment, ClientSecret, ConnectionString, HttpConfig,
};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::Arc;
use crate::time::Deadline;

use endpoint::Endpoint;
use sas::SharedAccessSignature;
use sign::AccountKey;

const DATE: HeaderName = HeaderName::from_static("x-ms-date");
const VERSION: HeaderName = HeaderName::from_static("x-ms-version");

/// The version of the protocol that requests are made for. Source: Blob service REST API, "Versioning for
/// Azure Storage".
const VERSION_DEFAULT: HeaderValue = HeaderValue::from_static("2021-12-02");

/// What is authorized, but for the headers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToAuthorize<'a> {
    pub method: &'a Method,
    /// As it will be sent, percent-encoded; with the account that stands in the path of some endpoints.
    pub path: &'a str,
    /// Not encoded.
    pub query: &'a [(&'a str, &'a str)],
    pub content_length_bytes: u64,
    pub time: SystemTime,
}

/// Authorizes the requests of one account.
#[derive(Debug)]
pub(crate) struct Authorizer {
    endpoint: Endpoint,
    way: Way,
    route: Route,
    /// `Authorization` headers with a token.
    tokens: Refreshing<HeaderValue>,
}

/// How requests are authorized.
#[derive(Debug)]
enum Way {
    Anonymous,
    Key(AccountKey),
    Sas(SharedAccessSignature),
    /// A token that is not renewed.
    Bearer(HeaderValue),
    Client {
        client: ClientSecret,
        authority: Option<String>,
    },
    /// Nothing but a token will do: these sources are asked.
    Search(Box<AzureEnvironment>),
    /// No credentials were given, and the settings take no environment.
    Nothing,
}

impl Authorizer {
    /// Asks nobody yet. `direct` is a transport without proxy, for what is on this machine or one hop away.
    ///
    /// # Errors
    /// `InvalidInput` if what was given is of another account or cannot be used.
    pub fn new(
        account: &str,
        azure: &AzureConfig,
        http: &HttpConfig,
        transport: Arc<dyn Transport>,
        direct: Arc<dyn Transport>,
    ) -> Result<Authorizer> {
        let (way, url) = Way::choose(account, azure)?;
        let endpoint = Endpoint::new(account, azure.endpoint.as_deref().or(url))?;
        way.check(&endpoint)?;
        Ok(Authorizer {
            endpoint,
            way,
            route: Route { transport, direct, attempts_max: http.attempts_max },
            tokens: Refreshing::new(),
        })
    }

    /// Where the account's containers are, without a slash at the end: `https://host` or, where accounts
    /// stand in the path, `http[s]://host/account`.
    pub fn endpoint(&self) -> &str {
        self.endpoint.as_str()
    }

    /// Adds `x-ms-date`, `x-ms-version` where there is none, and `authorization`, or replaces those of an
    /// earlier attempt. Returns what is to be appended to the query, not encoded; it is secret.
    ///
    /// # Errors
    /// The source of tokens that applied and failed, or all that were tried and how to give credentials.
    pub fn authorize(
        &self,
        call: &ToAuthorize<'_>,
        headers: &mut HeaderMap,
        deadline: &Deadline,
    ) -> Result<Vec<(String, String)>> {
        headers.insert(DATE, date(call.time)?);
        headers.entry(VERSION).or_insert(VERSION_DEFAULT);
        headers.remove(header::AUTHORIZATION);
        let authorization = match &self.way {
            Way::Anonymous => return Ok(Vec::new()),
            Way::Sas(sas) => return Ok(sas.query()),
            Way::Key(key) => key.sign(call, headers)?,
            Way::Bearer(token) => token.clone(),
            Way::Client { .. } | Way::Search(_) | Way::Nothing => {
                let token = self.tokens.get(deadline, |deadline| self.fetch(deadline))?;
                HeaderValue::clone(&token)
            }
        };
        headers.insert(header::AUTHORIZATION, authorization);
        Ok(Vec::new())
    }

    /// The server refused these headers' authorization (401). Returns whether there will be another one
    /// now: a token that was refused is asked for again, once however many say so.
    pub fn invalidate(&self, sent: &HeaderMap) -> bool {
        self.tokens.invalidate_where(|held| sent.get(header::AUTHORIZATION) == Some(held));
        matches!(self.way, Way::Client { .. } | Way::Search(_))
    }

    fn fetch(&self, deadline: &Deadline) -> Result<Fetched<HeaderValue>> {
        match &self.way {
            Way::Client { client, authority } => {
                const NAME: &str = "the client secret of AzureConfig";
                token::by_secret(&self.route, NAME, authority.as_deref(), client, deadline)
            }
            Way::Search(environment) => {
                let mut search =
                    Search { authorizer: self, environment, passed: Vec::new(), deadline };
                search.run()
            }
            _ => Err(nothing("none were given, and the settings take no environment")),
        }
    }
}

impl Way {
    /// The way, and the endpoint that came with it.
    fn choose<'a>(account: &str, azure: &'a AzureConfig) -> Result<(Way, Option<&'a str>)> {
        if azure.anonymous == Some(true) {
            return Ok((Way::Anonymous, None));
        }
        let environment = azure.environment.as_ref();
        let way = match azure.credentials.first() {
            Some(AzureCredentials::AccountKey(key)) => {
                Way::Key(AccountKey::new("the account_key of AzureConfig", account, key)?)
            }
            Some(AzureCredentials::SasToken(token)) => {
                Way::Sas(SharedAccessSignature::parse("the sas_token of AzureConfig", token)?)
            }
            Some(AzureCredentials::ConnectionString(parsed)) => {
                const NAME: &str = "the connection_string of AzureConfig";
                let bad = |problem: &String| Error::invalid(OPERATION, format!("{NAME} {problem}"));
                return Way::of_connection(NAME, account, parsed.as_ref().map_err(bad)?);
            }
            Some(AzureCredentials::BearerToken(token)) => {
                Way::Bearer(token::bearer("the bearer_token of AzureConfig", token)?)
            }
            Some(AzureCredentials::ClientSecret(client)) => Way::Client {
                client: client.clone(),
                authority: environment.and_then(|environment| environment.authority.clone()),
            },
            None => match environment {
                Some(environment) => return Way::of_environment(account, environment),
                None => Way::Nothing,
            },
        };
        Ok((way, None))
    }

    fn of_connection<'a>(
        source: &str,
        account: &str,
        connection: &'a ConnectionString,
    ) -> Result<(Way, Option<&'a str>)> {
        if let Some(other) = connection.account.as_deref() {
            check_account(source, other, account)?;
        }
        let way = match (&connection.key, &connection.sas_token) {
            (Some(key), _) => Way::Key(AccountKey::new(source, account, key)?),
            (None, Some(token)) => Way::Sas(SharedAccessSignature::parse(source, token)?),
            // Refused when it was read.
            (None, None) => Way::Nothing,
        };
        Ok((way, connection.endpoint.as_deref()))
    }

    fn of_environment<'a>(
        account: &str,
        environment: &'a AzureEnvironment,
    ) -> Result<(Way, Option<&'a str>)> {
        if let Some(connection) = &environment.connection_string {
            return Way::of_connection("AZURE_STORAGE_CONNECTION_STRING", account, connection);
        }
        let way = match (&environment.key, &environment.sas_token) {
            (Some(key), _) => Way::Key(AccountKey::new("AZURE_STORAGE_KEY", account, key)?),
            (None, Some(token)) => {
                Way::Sas(SharedAccessSignature::parse("AZURE_STORAGE_SAS_TOKEN", token)?)
            }
            (None, None) => return Ok((Way::Search(Box::new(environment.clone())), None)),
        };
        if let Some(other) = environment.account.as_deref() {
            check_account("AZURE_STORAGE_ACCOUNT", other, account)?;
        }
        Ok((way, None))
    }

    /// Whether it may be used over this endpoint.
    fn check(&self, endpoint: &Endpoint) -> Result<()> {
        if endpoint.is_secure() {
            return Ok(());
        }
        let origin = endpoint.origin();
        match self {
            Way::Bearer(_) | Way::Client { .. } => {
                let what = format!("bearer tokens go over https only, which {origin} is not");
                Err(Error::invalid(OPERATION, what).with_remedy(INSECURE_REMEDY))
            }
            Way::Search(_) => {
                let what = format!(
                    "no key and no SAS token is set, and bearer tokens go over https only, which \
                     {origin} is not"
                );
                Err(Error::invalid(OPERATION, what).with_remedy(INSECURE_REMEDY))
            }
            Way::Sas(sas) if sas.is_for_https_only() => {
                let what = format!("the SAS token is for https only, which {origin} is not");
                Err(Error::invalid(OPERATION, what))
            }
            _ => Ok(()),
        }
    }
}

const INSECURE_REMEDY: &str = "use an https endpoint, or the account's key or a SAS token";

/// Credentials of another account would be refused with words that do not tell why.
fn check_account(source: &str, theirs: &str, account: &str) -> Result<()> {
    if theirs == account {
        return Ok(());
    }
    let what = format!("{source} is of the account {theirs:?}, and the URI names {account:?}");
    Err(Error::invalid(OPERATION, what)
        .with_remedy("name the same account in both, as in az://account/container/key"))
}

fn nothing(passed: &str) -> Error {
    let what = format!("no credentials found: {passed}");
    Error::new(ErrorKind::PermissionDenied, OPERATION, what).with_remedy(
        "set AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or give \
         AzureConfig credentials; for a public container AzureConfig::anonymous or SYNCLINE_AZ_ANONYMOUS=true",
    )
}

fn date(time: SystemTime) -> Result<HeaderValue> {
    let text = format_http_date(time).and_then(|text| HeaderValue::try_from(text).ok());
    text.ok_or_else(|| {
        Error::invalid("authorize request", "this machine's clock shows no usable time")
            .with_remedy("set this machine's clock")
    })
}

/// One walk along the sources of tokens.
struct Search<'a> {
    authorizer: &'a Authorizer,
    environment: &'a AzureEnvironment,
    /// The sources that did not apply, and why.
    passed: Vec<String>,
    deadline: &'a Deadline,
}

/// What a source found, and the source's name.
type Found = Option<(&'static str, Fetched<HeaderValue>)>;

impl Search<'_> {
    fn run(&mut self) -> Result<Fetched<HeaderValue>> {
        self.passed.push("no AZURE_STORAGE_* variable gives a key or a SAS token".to_owned());
        let sources: [fn(&mut Self) -> Result<Found>; 3] =
            [Self::client_secret, Self::workload_identity, Self::managed_identity];
        for source in sources {
            if let Some((name, found)) = source(self)? {
                log::debug!("the token comes from {name}");
                return Ok(found);
            }
        }
        let passed = self.passed.join("; ");
        if self.deadline.expired() {
            let what = format!("no time was left; tried {passed}");
            return Err(Error::new(ErrorKind::TimedOut, OPERATION, what)
                .with_elapsed(self.deadline.elapsed()));
        }
        Err(nothing(&passed))
    }

    fn pass(&mut self, why: impl Into<String>) -> Result<Found> {
        self.passed.push(why.into());
        Ok(None)
    }

    fn client_secret(&mut self) -> Result<Found> {
        const NAME: &str = "the client secret";
        let Some(secret) = &self.environment.client_secret else {
            return self.pass("AZURE_CLIENT_SECRET is not set");
        };
        let (tenant_id, client_id) = self.application("AZURE_CLIENT_SECRET")?;
        let client_secret = secret.clone();
        let client = ClientSecret { tenant_id, client_id, client_secret };
        let fetched =
            token::by_secret(self.route(), NAME, self.authority(), &client, self.deadline);
        Ok(Some((NAME, fetched?)))
    }

    fn workload_identity(&mut self) -> Result<Found> {
        const NAME: &str = "workload identity";
        let Some(file) = &self.environment.federated_token_file else {
            return self.pass("AZURE_FEDERATED_TOKEN_FILE is not set");
        };
        let (tenant_id, client_id) = self.application("AZURE_FEDERATED_TOKEN_FILE")?;
        let identity = token::WorkloadIdentity { tenant_id, client_id, token_file: file };
        let fetched =
            token::by_assertion(self.route(), NAME, self.authority(), &identity, self.deadline);
        Ok(Some((NAME, fetched?)))
    }

    fn managed_identity(&mut self) -> Result<Found> {
        let (name, found) = identity::managed(self.route(), self.environment, self.deadline)?;
        match found {
            Ok(fetched) => Ok(Some((name, fetched))),
            Err(absent) => self.pass(absent),
        }
    }

    /// Tenant and client, which `variable` asks for.
    fn application(&self, variable: &str) -> Result<(String, String)> {
        let environment = self.environment;
        let lacking = match (&environment.tenant_id, &environment.client_id) {
            (Some(tenant), Some(client)) => return Ok((tenant.clone(), client.clone())),
            (None, _) => "AZURE_TENANT_ID",
            (_, None) => "AZURE_CLIENT_ID",
        };
        Err(Error::invalid(OPERATION, format!("{variable} is set and {lacking} is not")))
    }

    fn route(&self) -> &Route {
        &self.authorizer.route
    }

    fn authority(&self) -> Option<&str> {
        self.environment.authority.as_deref()
    }
}

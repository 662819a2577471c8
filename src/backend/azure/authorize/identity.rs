//! Managed identity: tokens from one hop away, of App Service and its kin and of the machine's metadata.
//!
//! Source: Microsoft Learn, "How to use managed identities for App Service" and "How to use managed
//! identities on an Azure VM to acquire an access token".

use std::net::IpAddr;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use s3::signing::uri_encode;

use super::token;
use crate::backend::http::{Fetched, OPERATION, Question, Route, parse_uri, quote, secret_header};
use crate::config::{AzureEnvironment, Secret};
use crate::error::{Error, Result};
use crate::time::Deadline;

/// The endpoint of App Service, as errors name it.
pub(super) const APP_SERVICE: &str = "the identity endpoint";

/// The machine's metadata, as errors name it.
pub(super) const MACHINE: &str = "the machine's metadata";

/// What the tokens are for.
const RESOURCE: &str = "https://storage.azure.com/";

const MACHINE_HOST: &str = "http://169.254.169.254";
const MACHINE_PATH: &str = "/metadata/identity/oauth2/token?api-version=2018-02-01";
const METADATA_HEADER: HeaderName = HeaderName::from_static("metadata");

const APP_SERVICE_VERSION: &str = "api-version=2019-08-01";
const APP_SERVICE_HEADER: HeaderName = HeaderName::from_static("x-identity-header");

/// One hop is fast, or there is nobody. The first question finds that out.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_ATTEMPTS_MAX: u32 = 2;

/// The host is there, but it may have to ask another for the token.
const TIMEOUT: Duration = Duration::from_secs(10);
const ATTEMPTS_MAX: u32 = 5;

/// A token; the inner error says why there is none to be had.
type Found = Result<Fetched<HeaderValue>, String>;

/// A token of the identity that this machine, or this service, was given; and the source's name.
pub(super) fn managed(
    route: &Route,
    environment: &AzureEnvironment,
    deadline: &Deadline,
) -> Result<(&'static str, Found)> {
    let client_id = environment.client_id.as_deref();
    match (&environment.identity_endpoint, &environment.identity_header) {
        (Some(endpoint), Some(header)) => {
            let service = AppService { endpoint, header, client_id };
            Ok((APP_SERVICE, Ok(service.token(route, deadline)?)))
        }
        _ => {
            let host = environment.metadata_endpoint.as_deref().unwrap_or(MACHINE_HOST);
            let machine = Machine { route, host, client_id, deadline };
            Ok((MACHINE, machine.token()?))
        }
    }
}

/// The resource, and the identity where several were given.
fn wanted(client_id: Option<&str>) -> String {
    let client = client_id.map(|id| format!("&client_id={}", uri_encode(id, true)));
    format!("resource={}{}", uri_encode(RESOURCE, true), client.unwrap_or_default())
}

struct AppService<'a> {
    endpoint: &'a Secret,
    header: &'a Secret,
    client_id: Option<&'a str>,
}

impl AppService<'_> {
    fn token(&self, route: &Route, deadline: &Deadline) -> Result<Fetched<HeaderValue>> {
        let secret = secret_header(APP_SERVICE, "IDENTITY_HEADER", self.header)?;
        let question = Question {
            source: APP_SERVICE,
            method: Method::GET,
            uri: self.uri()?,
            headers: HeaderMap::from_iter([(APP_SERVICE_HEADER, secret)]),
            body: &[],
            timeout: TIMEOUT,
            attempts_max: ATTEMPTS_MAX.min(route.attempts_max),
            secrets: &[self.header],
        };
        let body = question.body(&*route.direct, deadline)?;
        token::parse(APP_SERVICE, &body)
    }

    /// Without TLS only where no stranger stands between.
    fn uri(&self) -> Result<Uri> {
        let given = self.endpoint.expose();
        let joint = if given.contains('?') { '&' } else { '?' };
        let wanted = wanted(self.client_id);
        let uri = parse_uri(APP_SERVICE, &format!("{given}{joint}{APP_SERVICE_VERSION}&{wanted}"))?;
        let bad = |problem: &str| {
            let what = format!("{APP_SERVICE}: IDENTITY_ENDPOINT {problem}");
            Err(Error::invalid(OPERATION, what))
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return bad("holds a user");
        }
        match uri.scheme_str() {
            Some("https") => Ok(uri),
            Some("http") if uri.host().is_some_and(is_near) => Ok(uri),
            Some("http") => bad("leads to another machine without TLS"),
            _ => bad("is neither http:// nor https://"),
        }
    }
}

/// Whether a host is this machine or in its own network.
fn is_near(host: &str) -> bool {
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_link_local() || ip.is_private(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unicast_link_local(),
        Err(_) => false,
    }
}

struct Machine<'a> {
    route: &'a Route,
    host: &'a str,
    client_id: Option<&'a str>,
    deadline: &'a Deadline,
}

impl Machine<'_> {
    fn token(&self) -> Result<Found> {
        if let Err(absent) = self.look()? {
            return Ok(Err(absent));
        }
        let yes = HeaderValue::from_static("true");
        let headers = HeaderMap::from_iter([(METADATA_HEADER, yes)]);
        let attempts_max = ATTEMPTS_MAX.min(self.route.attempts_max);
        let question = self.question(headers, TIMEOUT, attempts_max)?;
        match question.ask(&*self.route.direct, self.deadline) {
            Ok((answer, _)) if answer.status.is_success() => {
                token::parse(MACHINE, &answer.body).map(Ok)
            }
            // No identity was given to the machine, or not this one.
            Ok((answer, attempts)) if answer.status.as_u16() == 400 => {
                Ok(Err(question.refused(&answer, attempts).detail().to_owned()))
            }
            Ok((answer, attempts)) => Err(question.refused(&answer, attempts)),
            Err(none) => Err(question.unanswered(&none)),
        }
    }

    /// Whether this is a machine of Azure; the inner error says why not. Without the header that it
    /// wants, the service refuses at once.
    fn look(&self) -> Result<Result<(), String>> {
        let attempts_max = FIRST_ATTEMPTS_MAX.min(self.route.attempts_max);
        let question = self.question(HeaderMap::new(), FIRST_TIMEOUT, attempts_max)?;
        match question.ask(&*self.route.direct, self.deadline) {
            Err(none) => {
                let detail = quote(&none.error.detail, &[]);
                Ok(Err(format!("{MACHINE} cannot be reached ({detail})")))
            }
            Ok((answer, attempts)) => match answer.status.as_u16() {
                200 | 400 => Ok(Ok(())),
                // A server that is no such service, or another provider's.
                code @ (401 | 403..=405 | 501) => {
                    Ok(Err(format!("{MACHINE} gives no token ({code})")))
                }
                _ => Err(question.refused(&answer, attempts)),
            },
        }
    }

    fn question(
        &self,
        headers: HeaderMap,
        timeout: Duration,
        attempts_max: u32,
    ) -> Result<Question<'static>> {
        let wanted = wanted(self.client_id);
        Ok(Question {
            source: MACHINE,
            method: Method::GET,
            uri: parse_uri(MACHINE, &format!("{}{MACHINE_PATH}&{wanted}", self.host))?,
            headers,
            body: &[],
            timeout,
            attempts_max,
            secrets: &[],
        })
    }
}

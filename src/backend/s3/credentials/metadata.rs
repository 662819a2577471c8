//! Keys from one hop away: the container's endpoint, and the instance's metadata (IMDSv2).

use std::net::IpAddr;
use std::time::Duration;

use ::http::header::AUTHORIZATION;
use ::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use super::Keys;
use super::handout::parse_handout;
use crate::backend::http::{
    Fetched, OPERATION, Question, Route, not_understood, parse_uri, quote, read_text, secret_header,
};
use crate::config::{ContainerEnvironment, Secret};
use crate::error::{Error, Result};
use crate::time::Deadline;

/// The container's endpoint, as errors name it.
pub(super) const CONTAINER: &str = "the container's endpoint";

/// The instance's metadata, as errors name it.
pub(super) const INSTANCE: &str = "the instance's metadata";

/// Where relative addresses of a container lead. Source: Amazon ECS developer guide, "Task IAM role".
const CONTAINER_HOST: &str = "http://169.254.170.2";

/// Hosts beside this machine that may be asked without TLS, those of ECS and of EKS. Source: AWS SDKs and
/// tools reference guide, "Container credential provider".
const CONTAINER_HOSTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// Source: Amazon EC2 user guide, "Use the Instance Metadata Service".
const INSTANCE_HOST: &str = "http://169.254.169.254";
const TOKEN_PATH: &str = "/latest/api/token";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const TOKEN_LIFE_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const ROLES_PATH: &str = "/latest/meta-data/iam/security-credentials/";

/// A token is used for two requests only.
const TOKEN_LIFE_SECS: &str = "300";

/// One hop is fast, or there is nobody. The first question finds that out.
const FIRST_TIMEOUT: Duration = Duration::from_secs(1);
const FIRST_ATTEMPTS_MAX: u32 = 2;

/// The host is there, but it may have to ask another for the keys.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS_MAX: u32 = 3;

/// Keys of a container; `None` where it is none.
pub(super) fn container(
    route: &Route,
    container: &ContainerEnvironment,
    deadline: &Deadline,
) -> Result<Option<Fetched<Keys>>> {
    let Some((uri, is_near)) = container_uri(container)? else { return Ok(None) };
    let token = match &container.token_file {
        Some(path) => Some(Secret::new(read_text(CONTAINER, path)?.trim())),
        None => container.token.clone(),
    };
    let mut headers = HeaderMap::new();
    if let Some(token) = &token {
        headers.insert(AUTHORIZATION, secret_header(CONTAINER, "the token", token)?);
    }
    let question = Question {
        source: CONTAINER,
        method: Method::GET,
        uri,
        headers,
        body: &[],
        timeout: TIMEOUT,
        attempts_max: ATTEMPTS_MAX.min(route.attempts_max),
        secrets: &token.iter().collect::<Vec<_>>(),
    };
    let transport = if is_near { &route.direct } else { &route.transport };
    let body = question.body(&**transport, deadline)?;
    parse_handout(CONTAINER, &body, None).map(Some)
}

/// Where a container's keys are, and whether that is this machine or one hop away.
fn container_uri(container: &ContainerEnvironment) -> Result<Option<(Uri, bool)>> {
    if let Some(path) = &container.relative_uri {
        if !path.expose().starts_with('/') {
            let what = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI does not begin with a slash";
            return Err(Error::invalid(OPERATION, format!("{CONTAINER}: {what}")));
        }
        let uri = parse_uri(CONTAINER, &format!("{CONTAINER_HOST}{}", path.expose()))?;
        return Ok(Some((uri, true)));
    }
    let Some(full) = &container.full_uri else { return Ok(None) };
    let uri = parse_uri(CONTAINER, full.expose())?;
    let bad = |problem: &str| {
        let what = format!("{CONTAINER}: AWS_CONTAINER_CREDENTIALS_FULL_URI {problem}");
        Err(Error::invalid(OPERATION, what))
    };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return bad("holds a user");
    }
    let is_near = uri.host().is_some_and(is_near);
    match uri.scheme_str() {
        Some("https") => Ok(Some((uri, is_near))),
        Some("http") if is_near => Ok(Some((uri, true))),
        Some("http") => bad("leads to another machine without TLS"),
        _ => bad("is neither http:// nor https://"),
    }
}

/// Whether a host is this machine, or one of the addresses that containers find their keys at.
fn is_near(host: &str) -> bool {
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let known = |ip: IpAddr| CONTAINER_HOSTS.iter().any(|host| host.parse() == Ok(ip));
    host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || known(ip))
}

/// Keys of an instance; the inner error says why there is no instance, or none with a role.
pub(super) fn instance(
    route: &Route,
    endpoint: Option<&str>,
    deadline: &Deadline,
) -> Result<Result<Fetched<Keys>, String>> {
    let instance = Instance { route, endpoint: endpoint.unwrap_or(INSTANCE_HOST), deadline };
    let token = match instance.token()? {
        Ok(token) => token,
        Err(absent) => return Ok(Err(absent)),
    };
    let role = match instance.role(&token)? {
        Ok(role) => role,
        Err(absent) => return Ok(Err(absent)),
    };
    let body = instance.read(&format!("{ROLES_PATH}{role}"), &token)?;
    let Some(body) = body else {
        return Ok(Err(format!("{INSTANCE}: the role went away")));
    };
    parse_handout(INSTANCE, &body, None).map(Ok)
}

struct Instance<'a> {
    route: &'a Route,
    endpoint: &'a str,
    deadline: &'a Deadline,
}

impl Instance<'_> {
    /// The token that the other questions need; the inner error says why there is none to be had.
    fn token(&self) -> Result<Result<Secret, String>> {
        let mut headers = HeaderMap::new();
        headers.insert(TOKEN_LIFE_HEADER, HeaderValue::from_static(TOKEN_LIFE_SECS));
        let question = Question {
            source: INSTANCE,
            method: Method::PUT,
            uri: parse_uri(INSTANCE, &format!("{}{TOKEN_PATH}", self.endpoint))?,
            headers,
            body: &[],
            timeout: FIRST_TIMEOUT,
            attempts_max: FIRST_ATTEMPTS_MAX.min(self.route.attempts_max),
            secrets: &[],
        };
        let (answer, attempts) = match question.ask(&*self.route.direct, self.deadline) {
            Ok(answered) => answered,
            Err(none) => {
                let detail = quote(&none.error.detail, &[]);
                return Ok(Err(format!("{INSTANCE} cannot be reached ({detail})")));
            }
        };
        match answer.status.as_u16() {
            200 => {
                let text = str::from_utf8(&answer.body).unwrap_or_default().trim();
                if text.is_empty() {
                    return Err(not_understood(INSTANCE, "holds no token"));
                }
                Ok(Ok(Secret::new(text)))
            }
            // Switched off, or a server that is no metadata service.
            code @ (403..=405 | 501) => Ok(Err(format!("{INSTANCE} gives no token ({code})"))),
            _ => Err(question.refused(&answer, attempts)),
        }
    }

    /// The name of the instance's role; the inner error says that it has none.
    fn role(&self, token: &Secret) -> Result<Result<String, String>> {
        let none = || Ok(Err(format!("{INSTANCE} names no role")));
        let Some(body) = self.read(ROLES_PATH, token)? else { return none() };
        let text = str::from_utf8(&body).unwrap_or("?");
        let Some(role) = text.lines().map(str::trim).find(|line| !line.is_empty()) else {
            return none();
        };
        let usual = |c: u8| c.is_ascii_alphanumeric() || b"+=,.@-_".contains(&c);
        if !role.bytes().all(usual) {
            return Err(not_understood(INSTANCE, "is not the name of a role"));
        }
        Ok(Ok(role.to_owned()))
    }

    /// What stands at a path; `None` where nothing does.
    fn read(&self, path: &str, token: &Secret) -> Result<Option<Vec<u8>>> {
        let mut headers = HeaderMap::new();
        headers.insert(TOKEN_HEADER, secret_header(INSTANCE, "the token", token)?);
        let question = Question {
            source: INSTANCE,
            method: Method::GET,
            uri: parse_uri(INSTANCE, &format!("{}{path}", self.endpoint))?,
            headers,
            body: &[],
            timeout: TIMEOUT,
            attempts_max: ATTEMPTS_MAX.min(self.route.attempts_max),
            secrets: &[token],
        };
        match question.ask(&*self.route.direct, self.deadline) {
            Ok((answer, _)) if answer.status == StatusCode::NOT_FOUND => Ok(None),
            Ok((answer, _)) if answer.status.is_success() => Ok(Some(answer.body)),
            Ok((answer, attempts)) => Err(question.refused(&answer, attempts)),
            Err(none) => Err(question.unanswered(&none)),
        }
    }
}

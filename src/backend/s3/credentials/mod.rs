//! Where the keys come from: a chain of sources, asked in order until one of them applies.
//!
//! Explicit keys, the environment, the profile files, web identity, the container's endpoint, the
//! instance's metadata. A source that cannot apply is passed over; one that applies and fails is an
//! error that names it, so that nobody works with other keys than those meant. Only the instance's metadata
//! may be absent: whether there is an instance is known by asking.
//!
//! No error of this folder is `NotFound`, which says that an object is absent, and none quotes an answer
//! or a file, which hold secrets.
//!
//! The keys are not kept in rust-s3's `creds::Credentials`: it reads environment and files by itself,
//! holds its secrets as plain text open to all, and each field may be absent.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod handout;
mod metadata;
mod process;
mod profile;
mod sts;
#[cfg(test)]
mod tests;

use crate::backend::http::{Fetched, OPERATION, Refreshing, Route, Transport};
use crate::config::{AwsEnvironment, HttpConfig, S3Config, Secret, StaticCredentials};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{Arc, OnceLock};
use crate::time::Deadline;

/// What requests are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    pub access_key_id: String,
    pub secret_access_key: Secret,
    pub session_token: Option<Secret>,
}

impl Keys {
    /// Keys as `source` gave them, if they can stand in a header.
    fn new(
        source: &str,
        access_key_id: &str,
        secret_access_key: &str,
        session_token: Option<&str>,
    ) -> Result<Keys> {
        let session_token = session_token.filter(|token| !token.is_empty());
        let visible = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_graphic());
        // A `/` would end the key's id within the signature's scope.
        let usable = visible(access_key_id)
            && !access_key_id.contains('/')
            && visible(secret_access_key)
            && session_token.is_none_or(visible);
        if !usable {
            let what = format!("{source}: a key is empty or holds characters that keys never have");
            return Err(Error::invalid(OPERATION, what));
        }
        Ok(Keys {
            access_key_id: access_key_id.to_owned(),
            secret_access_key: Secret::new(secret_access_key),
            session_token: session_token.map(Secret::new),
        })
    }

    fn of_static(source: &str, keys: &StaticCredentials) -> Result<Fetched<Keys>> {
        let token = keys.session_token.as_ref().map(Secret::expose);
        let secret = keys.secret_access_key.expose();
        Ok((Keys::new(source, &keys.access_key_id, secret, token)?, None))
    }
}

/// Finds the keys of one store when they are first asked for, and renews them before they expire.
#[derive(Debug)]
pub(crate) struct CredentialChain {
    anonymous: bool,
    explicit: Option<StaticCredentials>,
    region: Option<String>,
    endpoint: Option<String>,
    /// `None` where the builder took no environment: then only explicit keys apply.
    environment: Option<AwsEnvironment>,
    route: Route,
    cache: Refreshing<Keys>,
    defaults: OnceLock<profile::Defaults>,
}

impl CredentialChain {
    /// Asks nobody yet. `direct` is a transport without proxy, for what is on this machine or one hop away.
    pub fn new(
        s3: &S3Config,
        http: &HttpConfig,
        transport: Arc<dyn Transport>,
        direct: Arc<dyn Transport>,
    ) -> CredentialChain {
        CredentialChain {
            anonymous: s3.anonymous.unwrap_or(false),
            explicit: s3.credentials.clone(),
            region: s3.region.clone(),
            endpoint: s3.endpoint.clone(),
            environment: s3.environment.clone(),
            route: Route { transport, direct, attempts_max: http.attempts_max },
            cache: Refreshing::new(),
            defaults: OnceLock::new(),
        }
    }

    /// The keys to sign with; `None` where requests go out unsigned.
    ///
    /// # Errors
    /// The source that applied and failed, or all that were tried and how to give keys.
    pub fn keys(&self, deadline: &Deadline) -> Result<Option<Arc<Keys>>> {
        if self.anonymous {
            return Ok(None);
        }
        self.cache.get(deadline, |deadline| self.fetch(deadline)).map(Some)
    }

    /// The server says that these keys have expired: they are asked for again, once.
    pub fn invalidate(&self, stale: &Arc<Keys>) {
        self.cache.invalidate(stale);
    }

    /// The region that settings, environment or profile say. Reads files, once, and asks nobody.
    pub fn region(&self) -> Option<String> {
        self.region.clone().or_else(|| self.defaults().region.clone())
    }

    /// The server's address that settings, environment or profile say. Reads files, once, and asks nobody.
    /// A profile's is not checked.
    pub fn endpoint(&self) -> Option<String> {
        self.endpoint.clone().or_else(|| self.defaults().endpoint.clone())
    }

    fn defaults(&self) -> &profile::Defaults {
        self.defaults.get_or_init(|| {
            let Some(environment) = &self.environment else { return profile::Defaults::default() };
            // What is wrong with the files is told by `keys`, if it is they that are needed.
            profile::Profile::load(environment)
                .map(|found| found.map(|profile| profile.defaults()).unwrap_or_default())
                .unwrap_or_default()
        })
    }

    fn fetch(&self, deadline: &Deadline) -> Result<Fetched<Keys>> {
        if let Some(keys) = &self.explicit {
            return Keys::of_static("the credentials of S3Config", keys);
        }
        let mut passed = Vec::new();
        if let Some(environment) = &self.environment {
            let mut search = Search { chain: self, environment, passed: &mut passed, deadline };
            if let Some((name, found)) = search.walk()? {
                log::debug!("credentials come from {name}");
                return Ok(found);
            }
            if deadline.expired() {
                let what = format!("no time was left; tried {}", passed.join("; "));
                return Err(Error::new(ErrorKind::TimedOut, OPERATION, what)
                    .with_elapsed(deadline.elapsed()));
            }
        } else {
            passed.push("none were given, and the settings take no environment".to_owned());
        }
        let what = format!("no credentials found: {}", passed.join("; "));
        Err(Error::new(ErrorKind::PermissionDenied, OPERATION, what).with_remedy(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or \
             S3Config::credentials; for a public bucket S3Config::anonymous or SYNCLINE_S3_ANONYMOUS=true",
        ))
    }

    /// Where STS answers: near the region where it is one of AWS.
    fn sts_endpoint(&self, environment: &AwsEnvironment) -> String {
        let region = self.region();
        environment.sts_endpoint.clone().unwrap_or_else(|| sts::default_endpoint(region.as_deref()))
    }
}

/// One walk along the chain.
struct Search<'a> {
    chain: &'a CredentialChain,
    environment: &'a AwsEnvironment,
    /// The sources that did not apply, and why.
    passed: &'a mut Vec<String>,
    deadline: &'a Deadline,
}

/// What a source found, and the source's name.
type Found = Option<(String, Fetched<Keys>)>;

impl Search<'_> {
    /// Asks one source after the other.
    fn walk(&mut self) -> Result<Found> {
        let sources: [fn(&mut Self) -> Result<Found>; 5] =
            [Self::environment, Self::profile, Self::web_identity, Self::container, Self::instance];
        for source in sources {
            let found = source(self)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn pass(&mut self, why: impl Into<String>) -> Result<Found> {
        self.passed.push(why.into());
        Ok(None)
    }

    fn environment(&mut self) -> Result<Found> {
        const NAME: &str = "the environment";
        if let Some(lacking) = self.environment.credentials_lack {
            let what = format!("{NAME}: {lacking} is not set, while the other half of the keys is");
            return Err(Error::invalid(OPERATION, what));
        }
        match &self.environment.credentials {
            Some(keys) => Ok(Some((NAME.to_owned(), Keys::of_static(NAME, keys)?))),
            None => self.pass("AWS_ACCESS_KEY_ID is not set"),
        }
    }

    fn profile(&mut self) -> Result<Found> {
        let Some(profile) = profile::Profile::load(self.environment)? else {
            return self.pass("there is no default profile");
        };
        let name = profile.title().to_owned();
        let fetched = match profile.way()? {
            profile::Way::Keys(keys) => (keys, None),
            profile::Way::Process(command) => process::run(&name, &command, self.deadline)?,
            profile::Way::WebIdentity(role) => self.assume(&name, &role)?,
            profile::Way::Nothing => return self.pass(format!("{name} has no credentials")),
        };
        Ok(Some((name, fetched)))
    }

    fn web_identity(&mut self) -> Result<Found> {
        const NAME: &str = "web identity";
        let Some(token_file) = &self.environment.web_identity_token_file else {
            return self.pass("AWS_WEB_IDENTITY_TOKEN_FILE is not set");
        };
        let Some(role_arn) = &self.environment.role_arn else {
            let what = "AWS_WEB_IDENTITY_TOKEN_FILE is set and AWS_ROLE_ARN is not";
            return Err(Error::invalid(OPERATION, format!("{NAME}: {what}")));
        };
        let role = sts::WebIdentity {
            token_file: token_file.clone(),
            role_arn: role_arn.clone(),
            session_name: self.environment.role_session_name.clone(),
        };
        Ok(Some((NAME.to_owned(), self.assume(NAME, &role)?)))
    }

    fn assume(&self, name: &str, role: &sts::WebIdentity) -> Result<Fetched<Keys>> {
        let endpoint = self.chain.sts_endpoint(self.environment);
        sts::assume_role(&self.chain.route, name, &endpoint, role, self.deadline)
    }

    fn container(&mut self) -> Result<Found> {
        let container = &self.environment.container;
        match metadata::container(&self.chain.route, container, self.deadline)? {
            Some(fetched) => Ok(Some((metadata::CONTAINER.to_owned(), fetched))),
            None => self.pass("AWS_CONTAINER_CREDENTIALS_FULL_URI and _RELATIVE_URI are not set"),
        }
    }

    fn instance(&mut self) -> Result<Found> {
        if self.environment.metadata_disabled {
            return self.pass("AWS_EC2_METADATA_DISABLED is true");
        }
        let endpoint = self.environment.metadata_endpoint.as_deref();
        match metadata::instance(&self.chain.route, endpoint, self.deadline)? {
            Ok(fetched) => Ok(Some((metadata::INSTANCE.to_owned(), fetched))),
            Err(absent) => self.pass(absent),
        }
    }
}

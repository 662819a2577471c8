//! An authorizer between two transports, and what it makes of a request.

use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, Method};

use super::super::{Authorizer, ToAuthorize};
use crate::backend::http::fake::Fake;
use crate::config::{AzureConfig, AzureEnvironment, HttpConfig, Secret};
use crate::error::Result;
use crate::sync::Arc;
use crate::time::Deadline;

pub const ACCOUNT: &str = "acct";

/// `not a real key` in base64.
pub const KEY: &str = "bm90IGEgcmVhbCBrZXk=";

pub fn generous() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

/// An authorizer that asks each question but once.
pub fn authorizer(azure: &AzureConfig, transport: &Fake, direct: &Fake) -> Result<Authorizer> {
    let http = HttpConfig::new().attempts_max(1);
    Authorizer::new(ACCOUNT, azure, &http, Arc::new(transport.clone()), Arc::new(direct.clone()))
}

/// The same by the environment alone.
pub fn of_environment(
    environment: &AzureEnvironment,
    transport: &Fake,
    direct: &Fake,
) -> Result<Authorizer> {
    authorizer(&with(AzureConfig::new(), environment), transport, direct)
}

pub fn with(azure: AzureConfig, environment: &AzureEnvironment) -> AzureConfig {
    AzureConfig { environment: Some(environment.clone()), ..azure }
}

/// What is added to a request: headers, and pairs of the query.
pub type Added = (HeaderMap, Vec<(String, String)>);

pub fn authorize(authorizer: &Authorizer) -> Result<Added> {
    authorize_until(authorizer, &generous())
}

pub fn authorize_until(authorizer: &Authorizer, deadline: &Deadline) -> Result<Added> {
    let call = ToAuthorize {
        method: &Method::GET,
        path: "/c/key",
        query: &[],
        content_length_bytes: 0,
        time: SystemTime::UNIX_EPOCH,
    };
    let mut headers = HeaderMap::new();
    let query = authorizer.authorize(&call, &mut headers, deadline)?;
    Ok((headers, query))
}

/// The `Authorization` header, which is marked as secret.
pub fn authorization(added: &Added) -> Option<&str> {
    let value = added.0.get("authorization")?;
    assert!(value.is_sensitive());
    Some(value.to_str().unwrap())
}

pub fn token(text: &str) -> String {
    format!(r#"{{"token_type":"Bearer","expires_in":3599,"access_token":"{text}"}}"#)
}

/// An environment with an application's secret.
pub fn client() -> AzureEnvironment {
    AzureEnvironment {
        tenant_id: Some("tenant".to_owned()),
        client_id: Some("client".to_owned()),
        client_secret: Some(Secret::new("s3cr/t+&")),
        ..AzureEnvironment::default()
    }
}

/// An environment of App Service.
pub fn app_service(endpoint: &str) -> AzureEnvironment {
    AzureEnvironment {
        identity_endpoint: Some(Secret::new(endpoint)),
        identity_header: Some(Secret::new("header-secret")),
        ..AzureEnvironment::default()
    }
}

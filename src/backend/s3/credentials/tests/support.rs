//! A home folder, and a chain that looks there.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::super::{CredentialChain, Keys};
pub use crate::backend::http::fake::Fake;
use crate::config::{AwsEnvironment, HttpConfig, S3Config};
use crate::error::Result;
use crate::sync::Arc;
use crate::time::Deadline;

pub const FUTURE: &str = "2999-01-01T00:00:00Z";
pub const PAST: &str = "2001-01-01T00:00:00Z";

pub fn generous() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

/// A chain that makes each attempt but once unless told otherwise.
pub struct Chain {
    pub chain: CredentialChain,
}

impl Chain {
    pub fn new(
        s3: &S3Config,
        environment: AwsEnvironment,
        transport: &Fake,
        direct: &Fake,
    ) -> Chain {
        let s3 = S3Config { environment: Some(environment), ..s3.clone() };
        Chain::of(&s3, 1, transport, direct)
    }

    pub fn of(s3: &S3Config, attempts_max: u32, transport: &Fake, direct: &Fake) -> Chain {
        let http = HttpConfig::new().attempts_max(attempts_max);
        let (transport, direct) = (Arc::new(transport.clone()), Arc::new(direct.clone()));
        Chain { chain: CredentialChain::new(s3, &http, transport, direct) }
    }

    pub fn without_environment(s3: &S3Config, transport: &Fake) -> Chain {
        Chain::of(s3, 1, transport, transport)
    }

    pub fn keys(&self) -> Result<Option<Arc<Keys>>> {
        self.chain.keys(&generous())
    }
}

/// A home folder of its own.
pub struct Home(tempfile::TempDir);

impl Home {
    pub fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// An environment that says where home is, and nothing else.
    pub fn environment(&self) -> AwsEnvironment {
        AwsEnvironment { home: Some(self.0.path().to_owned()), ..AwsEnvironment::default() }
    }
}

pub fn json(body: &str) -> (u16, String) {
    (200, body.to_owned())
}

pub fn handout(id: &str, expiration: &str) -> String {
    format!(
        r#"{{"Code":"Success","LastUpdated":"{PAST}","Type":"AWS-HMAC","AccessKeyId":"{id}",
           "SecretAccessKey":"secret","Token":"token","Expiration":"{expiration}"}}"#
    )
}

pub fn sts_answer(id: &str, expiration: &str) -> String {
    format!(
        r#"<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
             <AssumeRoleWithWebIdentityResult>
               <SubjectFromWebIdentityToken>subject</SubjectFromWebIdentityToken>
               <Credentials>
                 <SessionToken>to/k+en=</SessionToken>
                 <SecretAccessKey>se/cr+et</SecretAccessKey>
                 <Expiration>{expiration}</Expiration>
                 <AccessKeyId>{id}</AccessKeyId>
               </Credentials>
             </AssumeRoleWithWebIdentityResult>
             <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>
           </AssumeRoleWithWebIdentityResponse>"#
    )
}

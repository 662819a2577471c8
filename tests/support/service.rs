//! A model of either service, with what tests of both ask of it.
//!
//! Stands beside `scripted.rs` and the models, in the same module.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::time::Duration;

use syncline::{AzureConfig, ConfigBuilder, S3Config};

use super::azure_model::{self, AzureModel};
use super::s3_model::{self, S3Model};
use super::scripted::{Answer, Fault, Request, Server};

/// The model of one of the services.
pub enum Service {
    S3(S3Model),
    Azure(AzureModel),
}

/// All that a service holds at some moment.
pub enum Snapshot {
    S3(s3_model::Snapshot),
    Azure(azure_model::Snapshot),
}

impl Service {
    /// `scheme` is `s3` or `az`.
    pub fn start(scheme: &str) -> Service {
        match scheme {
            "s3" => Service::S3(S3Model::start("container")),
            "az" => Service::Azure(AzureModel::start()),
            other => panic!("no service called {other}"),
        }
    }

    /// Where tests may do what they like.
    pub fn base(&self) -> &'static str {
        match self {
            Service::S3(_) => "s3://container/base",
            Service::Azure(_) => "az://account/container/base",
        }
    }

    pub fn server(&self) -> &Server {
        match self {
            Service::S3(model) => model.server(),
            Service::Azure(model) => model.server(),
        }
    }

    pub fn endpoint(&self) -> String {
        match self {
            Service::S3(model) => model.endpoint(),
            Service::Azure(model) => model.endpoint(),
        }
    }

    /// Settings that reach this service.
    pub fn reaching(&self, config: ConfigBuilder) -> ConfigBuilder {
        reaching(config, self.base(), &self.endpoint())
    }

    /// Sets the hook, instead of the one before. It is called with the number of the request (from 0,
    /// over all) and its head, before the body has come.
    pub fn on_request(
        &self,
        hook: impl Fn(usize, &Request) -> Option<Fault> + Send + Sync + 'static,
    ) {
        match self {
            Service::S3(model) => model.on_request(hook),
            Service::Azure(model) => model.on_request(hook),
        }
    }

    pub fn unhook(&self) {
        self.on_request(|_, _| None);
    }

    /// What a request asks for: `Put`, `UploadPart`, `PutBlock`...
    pub fn operation(&self, request: &Request) -> String {
        match self {
            Service::S3(_) => format!("{:?}", s3_model::operation(request)),
            Service::Azure(_) => format!("{:?}", azure_model::operation(request)),
        }
    }

    /// An error as the service answers it.
    pub fn error(&self, status: u16, code: &str) -> Answer {
        match self {
            Service::S3(_) => s3_model::error(status, code),
            Service::Azure(_) => azure_model::error(status, code),
        }
    }

    /// The keys of all objects, in order.
    pub fn keys(&self) -> Vec<String> {
        match self {
            Service::S3(model) => model.keys(),
            Service::Azure(model) => model.keys(),
        }
    }

    /// The keys of what was begun and made no object: uploads that are open, blocks that no list names.
    pub fn unfinished(&self) -> Vec<String> {
        match self {
            Service::S3(model) => model.uploads().into_values().map(|upload| upload.key).collect(),
            Service::Azure(model) => model.uncommitted(),
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        match self {
            Service::S3(model) => Snapshot::S3(model.snapshot()),
            Service::Azure(model) => Snapshot::Azure(model.snapshot()),
        }
    }

    /// Makes all as it was then.
    pub fn restore(&self, snapshot: &Snapshot) {
        match (self, snapshot) {
            (Service::S3(model), Snapshot::S3(snapshot)) => model.restore(snapshot),
            (Service::Azure(model), Snapshot::Azure(snapshot)) => model.restore(snapshot),
            _ => panic!("the snapshot is of another service"),
        }
    }

    /// Makes all that is there older.
    pub fn age(&self, by: Duration) {
        match self {
            Service::S3(model) => model.age(by),
            Service::Azure(model) => model.age(by),
        }
    }
}

/// Settings that reach the service at `endpoint` to which `uri` belongs; of other media those given.
pub fn reaching(config: ConfigBuilder, uri: &str, endpoint: &str) -> ConfigBuilder {
    match uri.split(':').next() {
        Some("s3") => {
            config.s3(S3Config::new().endpoint(endpoint).credentials("AKID", "secret", None))
        }
        // The key is the text `secret`.
        Some("az") => config.azure(AzureConfig::new().endpoint(endpoint).account_key("c2VjcmV0")),
        _ => config,
    }
}

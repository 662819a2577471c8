//! A medium, and for servers a model of one in this process.

use syncline::{AzureConfig, ConfigBuilder, S3Config};
use tempfile::TempDir;

use crate::azure_model::AzureModel;
use crate::s3_model::{Fault, S3Model};
use crate::scripted::{Request, Server};

/// Somewhere to write to. What it is reached by are words, for a child.
pub struct Place {
    pub medium: &'static str,
    pub base: String,
    /// `-` where there is no server.
    pub url: String,
    model: Option<Model>,
    _directory: Option<TempDir>,
}

enum Model {
    S3(S3Model),
    Azure(AzureModel),
}

impl Place {
    /// `medium` is `mem`, `file` or `direct` (on the disk of the build), `s3` or `az`.
    pub fn new(medium: &'static str) -> Place {
        let model = match medium {
            "s3" => Some(Model::S3(S3Model::start_unrecorded("container"))),
            "az" => Some(Model::Azure(AzureModel::start_unrecorded())),
            _ => None,
        };
        let url = match &model {
            Some(Model::S3(model)) => model.endpoint(),
            Some(Model::Azure(model)) => model.endpoint(),
            None => "-".to_owned(),
        };
        let place = |directory: Option<TempDir>, base: String| Place {
            medium,
            base,
            url: url.clone(),
            model: None,
            _directory: directory,
        };
        let mut place = match medium {
            "mem" => place(None, "mem://load/base".to_owned()),
            "s3" => place(None, "s3://container/base".to_owned()),
            "az" => place(None, "az://account/container/base".to_owned()),
            _ => return Place::in_directory(medium, TempDir::new_in(env!("CARGO_TARGET_TMPDIR"))),
        };
        place.model = model;
        place
    }

    /// Files in memory.
    pub fn tmpfs() -> Place {
        Place::in_directory("file", TempDir::new_in("/dev/shm"))
    }

    fn in_directory(medium: &'static str, directory: std::io::Result<TempDir>) -> Place {
        let directory = directory.unwrap();
        let base = format!("{medium}://{}/base", directory.path().to_str().unwrap());
        Place { medium, base, url: "-".to_owned(), model: None, _directory: Some(directory) }
    }

    /// Sets what happens to the requests of a server.
    pub fn on_request(&self, hook: impl Fn(&Request) -> Option<Fault> + Send + Sync + 'static) {
        match &self.model {
            Some(Model::S3(model)) => model.on_request(move |_, request| hook(request)),
            Some(Model::Azure(model)) => model.on_request(move |_, request| hook(request)),
            None => {}
        }
    }

    pub fn server(&self) -> Option<&Server> {
        match &self.model {
            Some(Model::S3(model)) => Some(model.server()),
            Some(Model::Azure(model)) => Some(model.server()),
            None => None,
        }
    }
}

/// An answer that is an error, as this medium's server tells it.
pub fn refusal(medium: &str, status: u16, code: &str) -> crate::scripted::Answer {
    match medium {
        "s3" => crate::s3_model::error(status, code),
        _ => crate::azure_model::error(status, code),
    }
}

/// How the medium's server at `url` is reached; what is logged on the way is searched for secrets.
pub fn reaching(config: ConfigBuilder, medium: &str, url: &str) -> ConfigBuilder {
    if ["s3", "az"].contains(&medium) {
        crate::watch::watch();
    }
    match medium {
        "s3" => config.s3(S3Config::new().endpoint(url).credentials("AKID", "secret", None)),
        // The key is the text `secret`.
        "az" => config.azure(AzureConfig::new().endpoint(url).account_key("c2VjcmV0")),
        _ => config,
    }
}

//! A server in another process, so that what is counted is the client's alone.

use syncline::{AzureConfig, ConfigBuilder, S3Config};

use crate::azure_model::AzureModel;
use crate::child;
use crate::s3_model::S3Model;

/// A server of its own; none for media of this machine.
pub struct Endpoint {
    pub url: String,
    _server: Option<child::Running>,
}

impl Endpoint {
    /// For the medium `s3` or `az`; of another one the address is `-`.
    pub fn start(medium: &str) -> Endpoint {
        if !matches!(medium, "s3" | "az") {
            return Endpoint { url: "-".to_owned(), _server: None };
        }
        let (server, url) = child::start(&format!("serve {medium}"));
        Endpoint { url, _server: Some(server) }
    }
}

/// In a child: serves until the parent lets go.
pub fn serve(medium: &str) {
    if medium == "s3" {
        let model = S3Model::start("container");
        child::tell(format_args!("{}", model.endpoint()));
        child::wait_for_the_end();
    } else {
        let model = AzureModel::start();
        child::tell(format_args!("{}", model.endpoint()));
        child::wait_for_the_end();
    }
}

/// How the medium's server at `url` is reached.
pub fn reaching(config: ConfigBuilder, medium: &str, url: &str) -> ConfigBuilder {
    match medium {
        "s3" => config.s3(S3Config::new().endpoint(url).credentials("AKID", "secret", None)),
        // The key is the text `secret`.
        "az" => config.azure(AzureConfig::new().endpoint(url).account_key("c2VjcmV0")),
        _ => config,
    }
}

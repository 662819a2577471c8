//! A server in another process, so that what is counted is the client's alone.

use crate::child;
use crate::service::Service;

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
    let service = Service::start(medium);
    child::tell(format_args!("{}", service.endpoint()));
    child::wait_for_the_end();
}

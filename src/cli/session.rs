//! What every command shares: settings, stores, output, progress and the wish to stop.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use syncline::{Config, Durability, ObjectStore, open_store};

use crate::args::Common;
use crate::failure::Failure;
use crate::output::{Output, printable};
use crate::progress::Progress;
use crate::signals::Stop;

/// The environment of one command.
pub struct Session {
    /// The engine's settings.
    pub config: Config,
    /// The options that gave them.
    pub common: Common,
    /// Standard output.
    pub out: Output,
    /// Progress bars.
    pub progress: Progress,
    /// Whether a signal asked to stop.
    pub stop: Arc<Stop>,
    /// One store, with its threads, per scheme and authority.
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
}

impl Session {
    /// Settles the options, for a command that compresses or not.
    pub fn new(common: &Common, compressing: bool, stop: Arc<Stop>) -> Result<Session, Failure> {
        Ok(Session {
            config: common.config(compressing)?,
            common: common.clone(),
            out: Output::new(common.json),
            progress: Progress::new(!common.no_progress),
            stop,
            stores: Mutex::default(),
        })
    }

    /// The store that holds `uri`.
    pub fn store(&self, uri: &str) -> Result<Arc<dyn ObjectStore>, Failure> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let root = store_root(uri);
        if let Some(store) = stores.get(root) {
            return Ok(Arc::clone(store));
        }
        let store = open_store(uri, &self.config)?;
        stores.insert(root.to_owned(), Arc::clone(&store));
        Ok(store)
    }

    /// Tells on standard error, before anything is entrusted to `uri`, what its filesystem does not promise. An
    /// error of looking is left to the writing.
    pub fn caution(&self, store: &dyn ObjectStore, uri: &str) {
        if let Ok(medium) = store.medium(uri)
            && medium.durability == Durability::NotPromised
            && let Some(caution) = medium.caution()
        {
            eprintln!("syncline: {}: {caution}", printable(uri));
        }
    }
}

/// `scheme://authority` of a URI; what is no URI is a local path.
fn store_root(uri: &str) -> &str {
    match uri.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.find('/').unwrap_or(rest.len());
            &uri[..scheme.len() + "://".len() + authority]
        }
        None => "file://",
    }
}

/// The last segment of a URI or path.
pub fn base_name(uri: &str) -> &str {
    uri.trim_end_matches('/').rsplit('/').next().unwrap_or(uri)
}

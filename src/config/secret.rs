//! Text that must not be seen: keys, tokens, passwords.

use crate::sync::Arc;
use std::fmt;

/// A secret. Neither `Debug` nor any message shows it; only [`expose`](Secret::expose) yields the text.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Arc<str>);

impl Secret {
    pub fn new(text: &str) -> Secret {
        Secret(Arc::from(text))
    }

    /// The text, for the place that sends or signs with it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

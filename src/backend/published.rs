//! What an object is between its rename and the sync of its directory: visible, and not yet proof against a
//! power cut.

use std::fmt;

use crate::backend::ObjectMeta;
use crate::error::{Error, Result};
use crate::sync::Arc;

/// An object that is visible.
#[derive(Debug)]
pub(crate) struct Published {
    pub meta: ObjectMeta,
    /// Where its name has to be made durable; `None` where it is.
    pub names: Option<Arc<dyn Names>>,
}

impl Published {
    /// Of a medium that makes objects visible and durable in one step.
    pub fn durable(meta: ObjectMeta) -> Published {
        Published { meta, names: None }
    }

    /// The object, once its name is durable.
    pub fn durably(self) -> Result<ObjectMeta> {
        if let Some(names) = self.names {
            names.sync().map_err(told_visible)?;
        }
        Ok(self.meta)
    }
}

/// What holds the names of objects: a directory. One sync serves all names that were given before it.
pub(crate) trait Names: Send + Sync + fmt::Debug {
    /// Tells one directory from another.
    fn id(&self) -> (u64, u64);

    /// Makes all names in it durable.
    fn sync(&self) -> Result<()>;
}

/// The error of names that could not be made durable.
pub(crate) fn told_visible(error: Error) -> Error {
    error.with_remedy("the object is visible, but may not survive a power cut: write it again")
}

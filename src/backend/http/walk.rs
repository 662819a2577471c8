//! Listings page by page, the same for all object stores.

use std::fmt;
use std::time::SystemTime;

use crate::backend::{ObjectMeta, Walk, is_temporary_name};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::LIST_PAGE_OBJECTS;
use crate::sync::Arc;
use crate::time::Deadline;

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedObject {
    pub key: String,
    pub size_bytes: u64,
    pub etag: Option<String>,
    pub modified: Option<SystemTime>,
}

/// A page of a list, and where the next begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page<T, M> {
    pub items: Vec<T>,
    /// `None` on the last page.
    pub next: Option<M>,
}

/// What a protocol does for listings.
pub(crate) trait Lists: Send + Sync + fmt::Debug {
    /// The objects whose keys begin with `prefix`, at most `keys_max`, from a marker on.
    fn page(
        &self,
        prefix: &str,
        from: Option<&str>,
        keys_max: usize,
        deadline: &Deadline,
    ) -> Result<Page<ListedObject, String>>;

    /// The URI of a key.
    fn uri(&self, key: &str) -> String;
}

/// A listing in progress.
#[derive(Debug)]
pub(crate) struct PagedWalk<L> {
    lists: Arc<L>,
    prefix: String,
    stage: Stage,
}

/// Where a listing stands. The object of the prefix's own name comes first; between it and those below
/// may lie any number of others (`a`, `a-1`, `a/b`), which are not asked for.
#[derive(Debug)]
enum Stage {
    Own,
    Below(Option<String>),
    End,
}

impl<L: Lists> PagedWalk<L> {
    pub fn new(lists: &Arc<L>, prefix: &str) -> PagedWalk<L> {
        let stage = if prefix.is_empty() { Stage::Below(None) } else { Stage::Own };
        PagedWalk { lists: Arc::clone(lists), prefix: prefix.to_owned(), stage }
    }

    /// The next keys, temporary ones and folders too; `None` at the end.
    pub fn step(&mut self, deadline: &Deadline) -> Result<Option<Vec<ListedObject>>> {
        let (objects, stage) = match &self.stage {
            Stage::Own => {
                let mut page = self.lists.page(&self.prefix, None, 1, deadline)?;
                page.items.retain(|object| object.key == self.prefix);
                (page.items, Stage::Below(None))
            }
            Stage::Below(from) => {
                let below = match self.prefix.as_str() {
                    "" => String::new(),
                    prefix => format!("{prefix}/"),
                };
                let from = from.as_deref();
                let page = self.lists.page(&below, from, LIST_PAGE_OBJECTS, deadline)?;
                if page.next.is_some() && page.next.as_deref() == from {
                    let what = "the server's next page is the same page";
                    return Err(Error::new(ErrorKind::Unavailable, "list", what));
                }
                if page.items.iter().any(|object| !object.key.starts_with(&below)) {
                    // Whoever removes what is listed must not remove anything else.
                    let what = "the server lists objects that were not asked for";
                    return Err(Error::new(ErrorKind::Unavailable, "list", what));
                }
                (page.items, page.next.map_or(Stage::End, |next| Stage::Below(Some(next))))
            }
            Stage::End => return Ok(None),
        };
        self.stage = stage;
        Ok(Some(objects))
    }
}

impl<L: Lists> Walk for PagedWalk<L> {
    fn next_page(&mut self, deadline: &Deadline) -> Result<Vec<ObjectMeta>> {
        while let Some(mut objects) = self.step(deadline)? {
            // Names that end in a slash stand for folders, and hold nothing.
            objects.retain(|object| !object.key.ends_with('/') && !has_temporary_name(&object.key));
            if !objects.is_empty() {
                let meta = |object: ListedObject| ObjectMeta {
                    uri: self.lists.uri(&object.key),
                    size_bytes: object.size_bytes,
                    modified: object.modified,
                    etag: object.etag,
                    checksum: None,
                    write: None,
                };
                return Ok(objects.into_iter().map(meta).collect());
            }
        }
        Ok(Vec::new())
    }
}

/// Whether this is the key of an object that a probe left.
pub(crate) fn has_temporary_name(key: &str) -> bool {
    is_temporary_name(key.rsplit('/').next().unwrap_or_default())
}

/// Whether a key is `prefix` or below it.
pub(crate) fn is_below(key: &str, prefix: &str) -> bool {
    match key.strip_prefix(prefix) {
        Some(rest) => prefix.is_empty() || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

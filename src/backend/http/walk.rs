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
    /// Of the places where pages begin, and of their first keys: a server may name its places anew each time.
    circles: [Circle<String>; 2],
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
        let prefix = prefix.to_owned();
        PagedWalk { lists: Arc::clone(lists), prefix, stage, circles: Default::default() }
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
                let [places, keys] = &mut self.circles;
                let first = page.items.first().map(|object| &object.key);
                if page.next.as_ref().is_some_and(|next| places.closes_at(next))
                    || first.is_some_and(|key| keys.closes_at(key))
                {
                    let what = "the server's next page is one that it sent before";
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

/// Notices when a list goes round in a circle, however long that is. One mark is kept, and a later one instead of
/// it after 1, 2, 4, 8... pages: some time it lies in the circle, and is met again.
/// Source: R. P. Brent, "An improved Monte Carlo factorization algorithm", 1980.
#[derive(Debug)]
pub(crate) struct Circle<M> {
    kept: Option<M>,
    /// Marks that came since `kept`, and after how many it gives way.
    since: u64,
    keeps: u64,
}

impl<M> Default for Circle<M> {
    fn default() -> Circle<M> {
        Circle { kept: None, since: 0, keeps: 1 }
    }
}

impl<M: PartialEq + Clone> Circle<M> {
    /// Takes the next mark. Returns whether it closes a circle.
    pub fn closes_at(&mut self, mark: &M) -> bool {
        if self.kept.as_ref() == Some(mark) {
            return true;
        }
        if self.kept.is_none() || self.since == self.keeps {
            (self.kept, self.since, self.keeps) = (Some(mark.clone()), 0, self.keeps * 2);
        }
        self.since += 1;
        false
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

#[cfg(test)]
mod tests {
    use super::Circle;

    #[test]
    fn circles_of_any_length_are_noticed_and_nothing_else() {
        for (before, length) in [(0, 1), (0, 2), (5, 3), (1, 100), (1000, 1), (77, 1000)] {
            let mut circle = Circle::default();
            let marks = (0..before).chain((before..before + length).cycle());
            let met = marks.take(4 * (before + length) + 4).position(|n| circle.closes_at(&n));
            // Never before the circle has been gone through.
            assert!(met.is_some_and(|met| met >= length), "{before} {length}: {met:?}");
        }
        let mut circle = Circle::default();
        assert!(!(0..100_000).any(|n| circle.closes_at(&n)));
    }
}

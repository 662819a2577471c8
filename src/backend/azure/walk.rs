//! Listings of a container. Source: Blob service REST API, "List Blobs" and "Get Block List".

use ::http::Method;

use crate::backend::Orphan;
use crate::backend::azure::Shared;
use crate::backend::azure::client::{Call, Reply};
use crate::backend::azure::xml::{self, Listing, Uncommitted};
use crate::backend::http::{
    Circle, ListedObject, Lists, Page, has_temporary_name, is_below, unreadable,
};
use crate::error::Result;
use crate::limits::AZURE_KEYS_PER_REQUEST_MAX;
use crate::sync::Arc;
use crate::time::Deadline;

/// Stands after the key in the name of an upload that was not committed.
pub(crate) const UNCOMMITTED_MARK: &str = "?uncommitted";

/// What is listed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Selection<'a> {
    pub prefix: &'a str,
    /// Where the page begins; at the start for `None`.
    pub marker: Option<&'a str>,
    pub keys_max: usize,
    /// What follows it in a name is not listed one by one.
    pub delimiter: Option<&'a str>,
    /// Whether blobs without a committed block are listed too.
    pub uncommitted: bool,
}

impl Shared {
    /// One page of a listing.
    pub fn list(
        &self,
        operation: &'static str,
        selection: Selection<'_>,
        deadline: &Deadline,
    ) -> Result<Listing> {
        let keys_max = selection.keys_max.min(AZURE_KEYS_PER_REQUEST_MAX).to_string();
        let mut query =
            vec![("restype", "container"), ("comp", "list"), ("maxresults", keys_max.as_str())];
        let given = |text: &'_ str| !text.is_empty();
        query.extend(Some(("prefix", selection.prefix)).filter(|(_, prefix)| given(prefix)));
        query.extend(selection.marker.map(|marker| ("marker", marker)));
        query.extend(selection.delimiter.map(|delimiter| ("delimiter", delimiter)));
        query.extend(selection.uncommitted.then_some(("include", "uncommittedblobs")));
        let mut call = Call::new(operation, Method::GET, None);
        call.query = &query;
        let answer = self.client.call(&call, deadline)?.answer(operation)?;
        xml::parse_listing(&answer.body).map_err(|e| unreadable(operation, e))
    }
}

impl Lists for Shared {
    fn page(
        &self,
        prefix: &str,
        from: Option<&str>,
        keys_max: usize,
        deadline: &Deadline,
    ) -> Result<Page<ListedObject, String>> {
        let selection = Selection { prefix, marker: from, keys_max, ..Selection::default() };
        Ok(self.list("list", selection, deadline)?.objects)
    }

    fn uri(&self, key: &str) -> String {
        Shared::uri(self, key)
    }
}

/// Uploads that were not committed, and objects under temporary names, below a prefix.
pub(crate) fn orphans(
    shared: &Arc<Shared>,
    prefix: &str,
    deadline: &Deadline,
) -> Result<Vec<Orphan>> {
    const OPERATION: &str = "find orphans";
    let mut orphans = Vec::new();
    let mut marker: Option<String> = None;
    let mut circle = Circle::default();
    loop {
        let selection = Selection {
            prefix,
            marker: marker.as_deref(),
            keys_max: AZURE_KEYS_PER_REQUEST_MAX,
            uncommitted: true,
            ..Selection::default()
        };
        let page = shared.list(OPERATION, selection, deadline)?.objects;
        for object in page.items.into_iter().filter(|object| is_below(&object.key, prefix)) {
            let ListedObject { key, size_bytes, modified, .. } = object;
            let uri = shared.uri(&key);
            if has_temporary_name(&key) {
                orphans.push(Orphan { uri, size_bytes, modified });
                continue;
            }
            // The list does not say which are which: those that are not committed have no bytes.
            if size_bytes == 0
                && let Some(found) = uncommitted_of(shared, &key, deadline)?
            {
                let uri = format!("{uri}{UNCOMMITTED_MARK}");
                orphans.push(Orphan { uri, size_bytes: found.bytes, modified });
            }
        }
        if page.next.as_ref().is_none_or(|next| circle.closes_at(next)) {
            return Ok(orphans);
        }
        marker = page.next;
    }
}

/// The blocks of a blob that was never committed; `None` for one that was, or is gone meanwhile.
fn uncommitted_of(shared: &Shared, key: &str, deadline: &Deadline) -> Result<Option<Uncommitted>> {
    const OPERATION: &str = "find orphans";
    let mut call = Call::new(OPERATION, Method::GET, Some(key));
    call.query = &[("comp", "blocklist"), ("blocklisttype", "uncommitted")];
    let answer = match shared.client.call(&call, deadline)? {
        Reply::Refused(refusal) if refusal.is_absence() => return Ok(None),
        reply => reply.answer(OPERATION)?,
    };
    let found =
        xml::parse_uncommitted(&answer.body).map_err(|error| unreadable(OPERATION, error))?;
    // An empty object may be about to be replaced.
    let absent = found.blocks > 0 && shared.find(key, deadline)?.is_none();
    Ok(Some(found).filter(|_| absent))
}

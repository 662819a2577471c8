//! Listings of a bucket. Source: Amazon S3 API reference, ListObjectsV2 and ListMultipartUploads.

use ::http::Method;

use crate::backend::Orphan;
use crate::backend::http::{
    Circle, ListedObject, Lists, Page, PagedWalk, encode_text, has_temporary_name, is_below,
    unreadable,
};
use crate::backend::s3::Shared;
use crate::backend::s3::client::{Call, Client};
use crate::backend::s3::xml;
use crate::error::{ErrorKind, Result};
use crate::limits::S3_KEYS_PER_REQUEST_MAX;
use crate::sync::Arc;
use crate::time::Deadline;

impl Lists for Shared {
    fn page(
        &self,
        prefix: &str,
        from: Option<&str>,
        keys_max: usize,
        deadline: &Deadline,
    ) -> Result<Page<ListedObject, String>> {
        let keys_max = keys_max.min(S3_KEYS_PER_REQUEST_MAX).to_string();
        let mut query = vec![
            ("list-type", "2"),
            ("encoding-type", "url"),
            ("max-keys", keys_max.as_str()),
            ("prefix", prefix),
        ];
        query.extend(from.map(|token| ("continuation-token", token)));
        let mut call = Call::new("list", Method::GET, None);
        call.query = &query;
        let answer = self.client.call(&call, deadline)?.answer("list")?;
        let listing = xml::parse_listing(&answer.body).map_err(|e| unreadable("list", e))?;
        Ok(listing.objects)
    }

    fn uri(&self, key: &str) -> String {
        Shared::uri(self, key)
    }
}

/// Unfinished uploads, and probes that were left, below a prefix.
pub(crate) fn orphans(
    shared: &Arc<Shared>,
    prefix: &str,
    deadline: &Deadline,
) -> Result<Vec<Orphan>> {
    let mut orphans = Vec::new();
    let mut marker: Option<xml::UploadMarker> = None;
    let mut circle = Circle::default();
    loop {
        let mut query = vec![("uploads", ""), ("encoding-type", "url"), ("prefix", prefix)];
        if let Some(marker) = &marker {
            query.push(("key-marker", &marker.key));
            query.extend(marker.upload_id.as_deref().map(|id| ("upload-id-marker", id)));
        }
        let mut call = Call::new("find orphans", Method::GET, None);
        call.query = &query;
        let answer = shared.client.call(&call, deadline)?.answer("find orphans")?;
        let page = xml::parse_uploads(&answer.body).map_err(|e| unreadable("find orphans", e))?;
        for upload in page.items.into_iter().filter(|upload| is_below(&upload.key, prefix)) {
            orphans.push(Orphan {
                uri: orphan_name(&shared.uri(&upload.key), &upload.upload_id),
                size_bytes: size_of(&shared.client, &upload.key, &upload.upload_id, deadline)?,
                modified: upload.initiated,
            });
        }
        if page.next.as_ref().is_none_or(|next| circle.closes_at(next)) {
            break;
        }
        marker = page.next;
    }
    orphans.extend(left_probes(shared, prefix, deadline)?);
    Ok(orphans)
}

/// Stands between the key and the id of an unfinished upload in an orphan's name.
const UPLOAD_MARK: &str = "?uploadId=";

/// The name of an unfinished upload. The id is encoded: it may hold what means something in a path.
fn orphan_name(key: &str, id: &str) -> String {
    format!("{key}{UPLOAD_MARK}{}", encode_text(id))
}

/// Key and id of an unfinished upload; `None` for another name.
pub(crate) fn upload_named(name: &str) -> Option<(&str, String)> {
    let (key, id) = name.rsplit_once(UPLOAD_MARK)?;
    Some((key, xml::decode(id.to_owned(), Some("url")).ok()?))
}

/// Objects under temporary names.
fn left_probes(shared: &Arc<Shared>, prefix: &str, deadline: &Deadline) -> Result<Vec<Orphan>> {
    let mut probes = Vec::new();
    let mut walk = PagedWalk::new(shared, prefix);
    while let Some(objects) = walk.step(deadline)? {
        for object in objects.into_iter().filter(|object| has_temporary_name(&object.key)) {
            let ListedObject { key, size_bytes, modified, .. } = object;
            probes.push(Orphan { uri: shared.uri(&key), size_bytes, modified });
        }
    }
    Ok(probes)
}

/// Bytes of an upload's parts. One that is gone meanwhile has none.
fn size_of(client: &Client, key: &str, id: &str, deadline: &Deadline) -> Result<u64> {
    let mut bytes = 0;
    let mut marker: Option<String> = None;
    let mut circle = Circle::default();
    loop {
        let mut query = vec![("uploadId", id)];
        query.extend(marker.as_deref().map(|marker| ("part-number-marker", marker)));
        let mut call = Call::new("find orphans", Method::GET, Some(key));
        call.query = &query;
        let answer = match client.call(&call, deadline)?.answer("find orphans") {
            Ok(answer) => answer,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let page = xml::parse_parts(&answer.body).map_err(|e| unreadable("find orphans", e))?;
        bytes = page.items.iter().fold(bytes, |sum: u64, part| sum.saturating_add(part.size_bytes));
        let next = page.next.map(|number| number.to_string());
        if next.as_ref().is_none_or(|next| circle.closes_at(next)) {
            return Ok(bytes);
        }
        marker = next;
    }
}

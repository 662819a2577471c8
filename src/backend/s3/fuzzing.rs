//! What must hold of any answer of S3's; see `crate::fuzzing`.

pub use super::credentials::fuzzing::aws_credentials;

use super::xml::*;
use crate::backend::fuzzing::assert_held;

/// All documents: each input is read as each of them.
pub fn s3_xml(data: &[u8]) {
    if let Some(error) = parse_error(data) {
        let ServerError { code, message, region, endpoint, bucket_name, request_id, host_id } =
            &error;
        let others = [region, endpoint, bucket_name, request_id, host_id];
        let others = others.into_iter().flatten().map(String::as_str);
        // The message may be absent.
        let message = Some(&**message).filter(|message| !message.is_empty());
        assert_held(data, others.chain([&**code]).chain(message));
        assert_eq!(parse_completed(data), Ok(Err(error)));
    }
    if let Ok(id) = parse_initiated(data) {
        assert!(!id.is_empty());
        assert_held(data, [&*id]);
    }
    if let Ok(Ok(completed)) = parse_completed(data) {
        let Completed { etag, crc32, crc32c, crc64nvme, checksum_type } = &completed;
        let texts = [etag, crc32, crc32c, crc64nvme, checksum_type];
        assert_held(data, texts.into_iter().flatten().map(String::as_str));
    }
    if let Ok(Listing { objects, common_prefixes }) = parse_listing(data) {
        let keys: Vec<&str> = objects.items.iter().map(|object| &*object.key).collect();
        let etags = objects.items.iter().filter_map(|object| object.etag.as_deref());
        let others = common_prefixes.iter().chain(&objects.next).map(String::as_str);
        assert_held(data, keys.iter().copied().chain(etags).chain(others));
        assert!(objects.next.is_none_or(|next| !next.is_empty()));
        check_keys(&keys);
    }
    if let Ok(page) = parse_uploads(data) {
        let keys: Vec<&str> = page.items.iter().map(|upload| &*upload.key).collect();
        let ids = page.items.iter().map(|upload| &*upload.upload_id);
        let next = page.next.iter().flat_map(|next| next.upload_id.iter().chain([&next.key]));
        assert_held(data, keys.iter().copied().chain(ids).chain(next.map(String::as_str)));
        check_keys(&keys);
    }
    if let Ok(page) = parse_parts(data) {
        assert_held(data, page.items.iter().map(|part| part.etag.as_deref().unwrap_or_default()));
    }
    if let Ok(Deletion { deleted, failed }) = parse_deletion(data) {
        let texts = failed.iter().flat_map(|one| [&one.key, &one.code]);
        assert_held(data, texts.chain(&deleted).map(String::as_str));
    }
}

/// Of the keys in a listing: each names something, and is the same in the request that removes it.
fn check_keys(keys: &[&str]) {
    assert!(keys.iter().all(|key| !key.is_empty()));
    // What XML cannot say at all, or what its reader drops.
    let sayable = |key: &str| !key.contains('\0') && !key.trim_ascii().is_empty();
    let keys: Vec<&str> = keys.iter().copied().filter(|key| sayable(key)).collect();
    let as_result = write_delete(&keys)
        .replace("<Delete xmlns", "<DeleteResult xmlns")
        .replace("</Delete>", "</DeleteResult>")
        .replace("Object>", "Deleted>");
    let read = parse_deletion(as_result.as_bytes()).map(|deletion| deletion.deleted);
    assert_eq!(read.as_deref(), Ok(&*keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>()));
}

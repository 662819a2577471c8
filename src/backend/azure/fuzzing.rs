//! What must hold of any answer of Azure's; see `crate::fuzzing`.

pub use super::authorize::fuzzing::azure_credentials;

use super::xml::*;
use crate::backend::fuzzing::assert_held;

/// All documents: each input is read as each of them.
pub fn azure_xml(data: &[u8]) {
    if let Some(ServerError { code, message, detail }) = parse_error(data) {
        let others = [&*message, &*detail].into_iter().filter(|text| !text.is_empty());
        assert_held(data, others.chain([&*code]));
    }
    if let Ok(Listing { objects, prefixes }) = parse_listing(data) {
        assert!(objects.items.iter().all(|object| !object.key.is_empty()));
        let keys = objects.items.iter().map(|object| &object.key);
        let texts = keys.chain(&prefixes).chain(&objects.next).map(String::as_str);
        // Quotes are added.
        let etags = objects.items.iter().filter_map(|object| object.etag.as_deref());
        assert_held(data, texts.chain(etags.map(|etag| etag.trim_matches('"'))));
        assert!(objects.next.is_none_or(|next| !next.is_empty()));
    }
    if let Ok(uncommitted) = parse_uncommitted(data) {
        assert_held(data, std::iter::repeat_n("", uncommitted.blocks));
    }
}

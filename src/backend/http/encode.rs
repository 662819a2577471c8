//! Paths and queries as all object stores take them. The percent-encoding is rust-s3's.

use s3::signing::uri_encode;

/// The path of a key, `/` kept and all but RFC 3986's unreserved characters encoded.
pub(crate) fn encode_path(key: &str) -> String {
    uri_encode(key, false)
}

/// A query in canonical order and encoding, without `?`. A name without a value ends with `=`.
pub(crate) fn encode_query<K: AsRef<str>, V: AsRef<str>>(pairs: &[(K, V)]) -> String {
    let encoded =
        pairs.iter().map(|(k, v)| (uri_encode(k.as_ref(), true), uri_encode(v.as_ref(), true)));
    let mut encoded: Vec<(String, String)> = encoded.collect();
    encoded.sort_unstable();
    encoded.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("&")
}

/// A text of which every character but the unreserved ones is encoded.
pub(crate) fn encode_text(text: &str) -> String {
    uri_encode(text, true)
}

//! What must hold of anything that requests are authorized with; see `crate::fuzzing`.

use super::endpoint::Endpoint;
use super::sas::SharedAccessSignature;
use super::sign::AccountKey;
use super::token;
use crate::backend::http::encode_query;
use crate::config::{ConnectionString, Secret};

const SOURCE: &str = "a source";

/// Shared access signatures, tokens, keys, and the addresses of accounts.
pub fn azure_credentials(data: &[u8]) {
    if let Ok((header, expires)) = token::parse(SOURCE, data) {
        assert!(header.is_sensitive() && header.as_bytes().starts_with(b"Bearer "));
        assert!(expires.is_some());
    }
    let Ok(text) = str::from_utf8(data) else { return };
    let secret = Secret::new(text);
    if let Ok(header) = token::bearer(SOURCE, &secret) {
        assert!(header.is_sensitive());
    }
    // What is no key is refused.
    let _ = AccountKey::new(SOURCE, "account", &secret);
    if let Ok(signature) = SharedAccessSignature::parse(SOURCE, &secret) {
        let mut query = signature.query();
        query.sort_unstable();
        let pairs: Vec<(&str, &str)> = query.iter().map(|(n, v)| (&**n, &**v)).collect();
        let encoded = Secret::new(&encode_query(&pairs));
        let again = SharedAccessSignature::parse(SOURCE, &encoded).expect("a query is one");
        let mut again = again.query();
        again.sort_unstable();
        assert_eq!(again, query);
    }
    // As it comes from the configuration, which checks it first.
    let named = format!("AccountName=account;AccountKey=k;BlobEndpoint={text}");
    let Ok(ConnectionString { endpoint: Some(url), .. }) = ConnectionString::parse(&named) else {
        return;
    };
    if let Ok(endpoint) = Endpoint::new("account", Some(&url)) {
        assert!(endpoint.as_str().starts_with(endpoint.origin()));
        let rest = &endpoint.as_str()[endpoint.origin().len()..];
        assert!(["", "/account"].contains(&rest), "{rest:?}");
    }
}

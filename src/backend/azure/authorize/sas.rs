//! Shared access signatures: a query that somebody with the account's key has made and signed.

use std::fmt;

use crate::backend::http::OPERATION;
use crate::config::Secret;
use crate::error::{Error, Result};

/// A signature, as the pairs of the query. Of a broken token the names may be secret, too.
#[derive(Clone)]
pub(super) struct SharedAccessSignature(Vec<(String, Secret)>);

impl SharedAccessSignature {
    /// Reads `sv=...&sig=...`, with or without a question mark. `source` names it in errors.
    pub fn parse(source: &str, token: &Secret) -> Result<SharedAccessSignature> {
        let bad = |problem: &str| {
            Error::invalid(OPERATION, format!("{source} {problem}"))
                .with_remedy("give the token as it was made: sv=...&sig=...")
        };
        let text = token.expose().trim();
        let text = text.strip_prefix('?').unwrap_or(text);
        let mut pairs = Vec::new();
        for piece in text.split('&').filter(|piece| !piece.is_empty()) {
            let pair = piece.split_once('=');
            let pair = pair.and_then(|(name, value)| Some((decode(name)?, decode(value)?)));
            let Some((name, value)) = pair else { return Err(bad("is no query of a URL")) };
            pairs.push((name, Secret::new(&value)));
        }
        if !pairs.iter().any(|(name, value)| name == "sig" && !value.expose().is_empty()) {
            return Err(bad("holds no signature"));
        }
        Ok(SharedAccessSignature(pairs))
    }

    /// What is appended to the query of a request, not encoded.
    pub fn query(&self) -> Vec<(String, String)> {
        self.0.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect()
    }

    pub fn is_for_https_only(&self) -> bool {
        self.0.iter().any(|(name, value)| name == "spr" && value.expose() == "https")
    }
}

impl fmt::Debug for SharedAccessSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Text that is percent-encoded in a query. A `+` stands for itself: in a signature in base64 that nobody
/// encoded it is one, and no other value of a token has a space.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        let digits = str::from_utf8(digits).ok().filter(|two| !two.starts_with('+'))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

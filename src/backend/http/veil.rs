//! What the agent must not see of a request: it writes all that it sends to its log, at level trace.
//!
//! For the path, the query and the headers that are marked sensitive the agent is given stars, one for each
//! byte. When it has written the head into the output buffer of a connection, and before that is encrypted and
//! sent, the stars are written over.

use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

/// What stands for what is hidden. Neither our paths nor our queries have one: it is encoded there.
const STAR: u8 = b'*';

/// What was hidden of one request.
#[derive(Debug)]
pub(super) struct Veil {
    method: Method,
    /// As the first line of the head has it.
    target: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Veil {
    /// Hides it. `None` where there is nothing that could be hidden.
    pub fn over(method: &Method, uri: &mut Uri, headers: &mut HeaderMap) -> Option<Veil> {
        let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let slash = if target.starts_with('/') { "" } else { "/" };
        let target = format!("{slash}{target}");
        let mut parts = uri.clone().into_parts();
        let stars = "*".repeat(target.len() - 1);
        parts.path_and_query = Some(PathAndQuery::try_from(format!("/{stars}")).ok()?);
        *uri = Uri::from_parts(parts).ok()?;
        let mut hidden = Vec::new();
        for (name, value) in headers.iter_mut().filter(|(_, value)| value.is_sensitive()) {
            let stars = HeaderValue::from_bytes(&vec![STAR; value.len()]).ok()?;
            hidden.push((name.clone(), std::mem::replace(value, stars)));
        }
        Some(Veil { method: method.clone(), target, headers: hidden })
    }

    /// Writes what was hidden over the stars of the head that `output` begins with. Returns whether all of them
    /// were there.
    pub fn lift(&self, output: &mut [u8]) -> bool {
        let start = self.method.as_str().len() + " /".len();
        let mut whole = put(output, start, &self.target.as_bytes()[1..]);
        for (name, value) in &self.headers {
            let label = format!("\r\n{name}: ");
            let place = output.windows(label.len()).position(|bytes| bytes == label.as_bytes());
            whole &= place.is_some_and(|at| put(output, at + label.len(), value.as_bytes()));
        }
        whole
    }
}

/// Writes `bytes` over as many stars.
fn put(output: &mut [u8], at: usize, bytes: &[u8]) -> bool {
    match output.get_mut(at..at + bytes.len()) {
        Some(place) if place.iter().all(|byte| *byte == STAR) => {
            place.copy_from_slice(bytes);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head as the agent writes it.
    fn head(uri: &Uri, headers: &HeaderMap) -> Vec<u8> {
        let mut head = format!("PUT {} HTTP/1.1\r\nhost: h", uri.path_and_query().unwrap());
        for (name, value) in headers {
            head.push_str(&format!("\r\n{name}: {}", value.to_str().unwrap()));
        }
        (head + "\r\n\r\n").into_bytes()
    }

    fn headers(values: [(&'static str, &'static str, bool); 3]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value, sensitive) in values {
            let mut value = HeaderValue::from_static(value);
            value.set_sensitive(sensitive);
            headers.insert(name, value);
        }
        headers
    }

    #[test]
    fn what_is_hidden_comes_back_and_nothing_else_changes() {
        let sent = headers([
            ("authorization", "Bearer SECRET", true),
            ("if-none-match", "*", false),
            ("x-token", "SECRET", true),
        ]);
        for path in ["/", "/k?sv=1&sig=SECRET", "/SECRET/*", "/?SECRET"] {
            let uri: Uri = format!("http://h{path}").parse().unwrap();
            let (mut hidden_uri, mut hidden) = (uri.clone(), sent.clone());
            let veil = Veil::over(&Method::PUT, &mut hidden_uri, &mut hidden).unwrap();
            assert_eq!(hidden_uri.authority(), uri.authority());
            let mut output = head(&hidden_uri, &hidden);
            let seen = String::from_utf8(output.clone()).unwrap();
            assert!(!seen.contains("SECRET") && !seen.contains("sig"), "{seen}");
            assert!(veil.lift(&mut output));
            assert_eq!(output, head(&uri, &sent));
            // Over what is no star nothing is written, and the request does not go out.
            assert!(!veil.lift(&mut output));
            assert_eq!(output, head(&uri, &sent));
        }
    }

    #[test]
    fn a_head_that_is_not_all_there_is_told() {
        let sent = headers([("a", "1", false), ("b", "2", false), ("x-token", "SECRET", true)]);
        let (mut uri, mut hidden) = (Uri::from_static("http://h/key"), sent);
        let veil = Veil::over(&Method::PUT, &mut uri, &mut hidden).unwrap();
        let whole = head(&uri, &hidden);
        for bytes in 0..whole.len() - "\r\n\r\n".len() {
            assert!(!veil.lift(&mut whole.clone()[..bytes]), "{bytes}");
        }
    }
}

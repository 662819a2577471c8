//! Where a bucket is: scheme, host and path of its requests.

use crate::backend::http::encode_path;
use crate::config::S3Config;

/// The place of one bucket.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// `http` or `https`.
    scheme: String,
    /// Host and port of an endpoint of the user's; `None` is AWS, where the region names the host.
    authority: Option<String>,
    bucket: String,
    path_style: bool,
}

/// Where one request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Host, and port where it is not the scheme's own.
    pub authority: String,
    /// Percent-encoded.
    pub path: String,
}

impl Endpoint {
    /// `endpoint` was checked by the configuration: `http[s]://host[:port]`.
    pub fn new(s3: &S3Config, endpoint: Option<&str>, bucket: &str) -> Endpoint {
        let (scheme, authority) = match endpoint.and_then(|url| url.split_once("://")) {
            Some((scheme, rest)) => {
                let rest = rest.trim_end_matches('/');
                let own_port = if scheme == "https" { ":443" } else { ":80" };
                let authority = rest.strip_suffix(own_port).unwrap_or(rest);
                (scheme.to_owned(), Some(authority.to_owned()))
            }
            None => ("https".to_owned(), None),
        };
        let by_default = authority.is_some() || !names_a_host(bucket);
        let path_style = s3.path_style.unwrap_or(by_default);
        Endpoint { scheme, authority, bucket: bucket.to_owned(), path_style }
    }

    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// For messages: the host of the bucket's requests.
    pub fn host(&self, region: &str) -> String {
        self.target(region, None).authority
    }

    /// The same, where the user told it.
    pub fn own_host(&self) -> Option<String> {
        self.authority.as_ref().map(|_| self.host(""))
    }

    /// Where a request for `key`, or for the bucket, goes.
    pub fn target(&self, region: &str, key: Option<&str>) -> Target {
        let host = self.authority.clone().unwrap_or_else(|| aws_host(region));
        let key = key.map(encode_path).unwrap_or_default();
        if self.path_style {
            let slash = if key.is_empty() { "" } else { "/" };
            let path = format!("/{}{slash}{key}", encode_path(&self.bucket));
            return Target { authority: host, path };
        }
        Target { authority: format!("{}.{host}", self.bucket), path: format!("/{key}") }
    }

    /// Whether a redirect from here to `location` stays with the same owner: on AWS among its hosts,
    /// elsewhere on the very host; and never from https to http. Returns the new host.
    pub fn follows(&self, region: &str, location: &str) -> Option<String> {
        let (scheme, rest) = location.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        if scheme != self.scheme || authority.is_empty() || authority.contains('@') {
            return None;
        }
        let same = match &self.authority {
            Some(_) => authority.eq_ignore_ascii_case(&self.host(region)),
            None => {
                AWS_DOMAINS.iter().any(|domain| authority.to_ascii_lowercase().ends_with(domain))
            }
        };
        same.then(|| authority.to_owned())
    }
}

/// Domains of which AWS owns every host.
const AWS_DOMAINS: [&str; 2] = [".amazonaws.com", ".amazonaws.com.cn"];

fn aws_host(region: &str) -> String {
    let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("s3.{region}.amazonaws.com{suffix}")
}

/// Whether a bucket can stand in a host's name: as DNS wants it, and without dots, for which the
/// certificate's wildcard does not stand.
fn names_a_host(bucket: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (3..=63).contains(&bucket.len())
        && bucket.bytes().all(plain)
        && !bucket.starts_with('-')
        && !bucket.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(endpoint: Option<&str>, bucket: &str) -> Endpoint {
        Endpoint::new(&S3Config::default(), endpoint, bucket)
    }

    #[test]
    fn hosts_and_paths() {
        let target = |endpoint: Option<&str>, bucket: &str| {
            let Target { authority, path } =
                at(endpoint, bucket).target("eu-west-1", Some("a b/c"));
            format!("{authority}{path}")
        };
        assert_eq!(target(None, "bucket"), "bucket.s3.eu-west-1.amazonaws.com/a%20b/c");
        assert_eq!(target(None, "with.dots"), "s3.eu-west-1.amazonaws.com/with.dots/a%20b/c");
        assert_eq!(target(Some("http://h:9000"), "bucket"), "h:9000/bucket/a%20b/c");
        assert_eq!(target(Some("https://h:443/"), "bucket"), "h/bucket/a%20b/c");
        assert_eq!(
            at(None, "bucket").target("cn-north-1", None).authority,
            "bucket.s3.cn-north-1.amazonaws.com.cn"
        );
        let virtual_hosted = S3Config::new().path_style(false);
        let endpoint = Endpoint::new(&virtual_hosted, Some("https://store.example"), "bucket");
        assert_eq!(endpoint.target("x", None).authority, "bucket.store.example");
    }

    #[test]
    fn redirects_stay_in_the_family() {
        let aws = at(None, "bucket");
        assert!(aws.follows("us-east-1", "https://bucket.s3.eu-west-1.amazonaws.com/k").is_some());
        for away in [
            "http://bucket.s3.eu-west-1.amazonaws.com/k",
            "https://amazonaws.com.example/k",
            "https://evil@bucket.s3.amazonaws.com/k",
            "https://bucket.s3.amazonaws.com.example/",
            "/relative",
            "https:///k",
        ] {
            assert_eq!(aws.follows("us-east-1", away), None, "{away}");
        }
        let own = at(Some("http://127.0.0.1:9000"), "bucket");
        assert!(own.follows("x", "http://127.0.0.1:9000/bucket/k").is_some());
        assert!(own.follows("x", "http://127.0.0.1:9001/bucket/k").is_none());
    }
}

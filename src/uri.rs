//! Where an object is: scheme, authority and key, from a URI or a bare path.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use crate::backend::is_temporary_name;
use crate::error::{Error, Result};

/// The schemes this crate opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    File,
    Direct,
    Memory,
    S3,
    Azure,
}

impl Scheme {
    const ALL: [Scheme; 5] =
        [Scheme::File, Scheme::Direct, Scheme::Memory, Scheme::S3, Scheme::Azure];

    pub fn name(self) -> &'static str {
        match self {
            Scheme::File => "file",
            Scheme::Direct => "direct",
            Scheme::Memory => "mem",
            Scheme::S3 => "s3",
            Scheme::Azure => "az",
        }
    }

    /// Whether the part after `://` begins with the name of what holds the keys.
    fn has_authority(self) -> bool {
        matches!(self, Scheme::Memory | Scheme::S3 | Scheme::Azure)
    }

    /// Whether keys are paths of a filesystem, where doubled slashes mean nothing.
    fn is_path(self) -> bool {
        !matches!(self, Scheme::S3 | Scheme::Azure)
    }
}

/// A parsed URI. The key is normalised: no trailing slash, no `.` or `..` segment, and where it is a path
/// no leading or doubled slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    pub scheme: Scheme,
    /// The name of a `mem://` store, the bucket of an `s3://` one, `account/container` of an `az://` one;
    /// empty for paths.
    pub authority: String,
    pub key: String,
}

impl Location {
    /// Reads `file:///path`, `direct:///path`, `mem://name/key`, `s3://bucket/key`,
    /// `az://account/container/key` or a bare path, which means `file://`.
    /// Characters stand for themselves: nothing is percent-decoded.
    pub fn parse(uri: &str) -> Result<Location> {
        let invalid = |why: &str| Error::invalid("parse URI", why).with_uri(uri);
        if uri.is_empty() {
            return Err(invalid("the URI is empty"));
        }
        if let Some(bad) = uri.chars().find(|c| c.is_control()) {
            return Err(invalid(&format!("the control character {bad:?} is not allowed in names")));
        }
        let Some((name, rest)) = uri.split_once("://") else {
            if let Some(name) = scheme_without_slashes(uri) {
                return Err(invalid("the scheme is not followed by ://").with_remedy(format!(
                    "write {name}:///absolute/path, or ./{uri} for a file of that name"
                )));
            }
            let path = absolute(uri).map_err(|why| invalid(&why))?;
            return Ok(Location {
                scheme: Scheme::File,
                authority: String::new(),
                key: normal(Scheme::File, &path, uri)?,
            });
        };
        let Some(scheme) = Scheme::ALL.into_iter().find(|scheme| scheme.name() == name) else {
            return Err(invalid(&format!("unknown scheme {name:?}")).with_remedy(
                "use file:///path, direct:///path, mem://name/key, s3://bucket/key, \
                 az://account/container/key or a plain path",
            ));
        };
        let (authority, key) = match scheme {
            Scheme::Azure => container_and_key(rest)
                .map_err(|why| invalid(&why).with_remedy("write az://account/container/key"))?,
            _ if scheme.has_authority() => rest.split_once('/').unwrap_or((rest, "")),
            _ => match rest.strip_prefix('/') {
                Some(key) => ("", key),
                None => {
                    return Err(invalid("the path after :// is relative")
                        .with_remedy(format!("write {name}:///absolute/path")));
                }
            },
        };
        if scheme.has_authority() && authority.is_empty() {
            return Err(
                invalid("the store has no name").with_remedy(format!("write {name}://name/key"))
            );
        }
        if scheme == Scheme::S3 && !is_bucket(authority) {
            return Err(invalid(&format!("{authority:?} is no name of a bucket"))
                .with_remedy("buckets have letters, digits, dots, hyphens and underscores"));
        }
        Ok(Location { scheme, authority: authority.to_owned(), key: normal(scheme, key, uri)? })
    }

    /// As [`parse`](Location::parse), for the name of one object.
    pub fn parse_object(uri: &str) -> Result<Location> {
        let location = Location::parse(uri)?;
        if location.key.is_empty() {
            return Err(Error::invalid("parse URI", "no object is named").with_uri(uri));
        }
        if uri.ends_with('/') {
            return Err(
                Error::invalid("parse URI", "an object's name does not end in /").with_uri(uri)
            );
        }
        let name = location.key.rsplit('/').next().unwrap_or_default();
        if is_temporary_name(name) {
            return Err(
                Error::invalid("parse URI", "the name is one of unfinished uploads").with_uri(uri)
            );
        }
        Ok(location)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/{}", self.scheme.name(), self.authority, self.key)
    }
}

/// The scheme of `file:/x` or `direct:x`, which would otherwise name a file below the working directory
/// and write elsewhere, and otherwise, than was meant.
fn scheme_without_slashes(path: &str) -> Option<&str> {
    let (name, rest) = path.split_once(':')?;
    let known = Scheme::ALL.into_iter().any(|scheme| scheme.name() == name);
    let looks_like_one = name.len() > 1
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        && rest.starts_with('/');
    (known || looks_like_one).then_some(name)
}

/// As permissive as servers are: what stands in a host's name or a path as it is.
fn is_bucket(name: &str) -> bool {
    name.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_".contains(&c))
        && !name.bytes().all(|c| c == b'.')
}

/// Splits `account/container/key` into the first two and the last, which may be absent.
fn container_and_key(rest: &str) -> Result<(&str, &str), String> {
    let (account, below) = rest.split_once('/').unwrap_or((rest, ""));
    let (container, key) = below.split_once('/').unwrap_or((below, ""));
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_".contains(&c);
    if account.is_empty() || !account.bytes().all(plain) {
        return Err(format!("{account:?} is no name of an account"));
    }
    if container.is_empty() {
        return Err(format!("the account {account} is named without a container"));
    }
    // `$root`, `$web` and `$logs` are the service's own.
    let name = container.strip_prefix('$').unwrap_or(container);
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(format!("{container:?} is no name of a container"));
    }
    let authority_bytes = account.len() + 1 + container.len();
    Ok((&rest[..authority_bytes], key))
}

/// Refuses segments that climb; drops empty ones of paths. In a bucket they are part of the key.
fn normal(scheme: Scheme, key: &str, uri: &str) -> Result<String> {
    if !scheme.is_path() && (key == "/" || key.ends_with("//")) {
        // `bucket/run/$ID/` with an empty ID: it must not mean all the runs, nor the whole bucket.
        return Err(Error::invalid("parse URI", "the name ends with an empty segment")
            .with_uri(uri)
            .with_remedy("write it with one slash at its end, or none"));
    }
    let key = if scheme.is_path() { key } else { key.trim_end_matches('/') };
    let mut normal = String::with_capacity(key.len());
    let mut first = true;
    for segment in key.split('/').filter(|segment| !(scheme.is_path() && segment.is_empty())) {
        if segment == "." || segment == ".." {
            return Err(Error::invalid(
                "parse URI",
                format!("the segment {segment:?} is not allowed"),
            )
            .with_uri(uri)
            .with_remedy("write the path without . and .. segments"));
        }
        if !first {
            normal.push('/');
        }
        first = false;
        normal.push_str(segment);
    }
    Ok(normal)
}

/// A bare path as an absolute one. `..` is resolved by asking the filesystem, since what it means
/// depends on links.
fn absolute(path: &str) -> Result<String, String> {
    let full = std::path::absolute(path).map_err(|e| e.to_string())?;
    let components: Vec<Component<'_>> = full.components().collect();
    let resolved = match components.iter().rposition(|c| *c == Component::ParentDir) {
        None => full,
        Some(last) => {
            let climbing: PathBuf = components[..=last].iter().collect();
            let real =
                climbing.canonicalize().map_err(|e| format!("{}: {e}", climbing.display()))?;
            real.join(components[last + 1..].iter().collect::<PathBuf>())
        }
    };
    let text = resolved.to_str().ok_or("the path is not UTF-8")?;
    let slash = if path.ends_with('/') { "/" } else { "" };
    Ok(format!("{}{slash}", Path::new(text).display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn forms_that_name_the_same() {
        for uri in ["file:///a/b", "/a/b", "file:////a//b/", "/a/./b", "/a/b/"] {
            assert_eq!(Location::parse(uri).unwrap().to_string(), "file:///a/b", "{uri}");
        }
        assert_eq!(Location::parse("mem://m/k/l").unwrap().to_string(), "mem://m/k/l");
        assert_eq!(Location::parse("mem://m").unwrap().key, "");
        assert_eq!(Location::parse("direct:///d").unwrap().scheme, Scheme::Direct);
        let odd = Location::parse("s3://my-bucket//a//b +%~/").unwrap();
        assert_eq!((odd.authority.as_str(), odd.key.as_str()), ("my-bucket", "/a//b +%~"));
        assert_eq!(Location::parse("s3://b").unwrap().key, "");
        let blob = Location::parse("az://account/$web//a//b/").unwrap();
        assert_eq!((blob.authority.as_str(), blob.key.as_str()), ("account/$web", "/a//b"));
        assert_eq!(blob.to_string(), "az://account/$web//a//b");
        assert_eq!(Location::parse("az://account/container").unwrap().key, "");
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        let up = Location::parse("../x").unwrap();
        assert_eq!(format!("/{}", up.key), here.parent().unwrap().join("x").to_str().unwrap());
    }

    #[test]
    fn what_cannot_be_named_is_refused() {
        for uri in [
            "",
            "ftp://x/y",
            "s3:/x\n",
            "file://host/x",
            "file://x",
            "mem://",
            "mem:///k",
            "s3://",
            "s3:///k",
            "s3://a@b/k",
            "s3://a:9/k",
            "s3://b/../k",
            "s3://b//",
            "s3://b/run//",
            "az://account/container//",
            "az://account/container/run//",
            "az://",
            "az://account",
            "az://account/",
            "az://account//key",
            "az:///container/key",
            "az://acc.ount/container/key",
            "az://account/con%tainer/key",
            "az://account/container/../key",
            "s3://b/k/./l",
            "file:///a/../b",
            "mem://m/./k",
            "file:///a\0b",
            "file:///a\u{7f}",
            "FILE:///a",
        ] {
            assert_eq!(
                Location::parse(uri).unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{uri:?}"
            );
        }
        for uri in ["mem://m", "file:///", "/a/", "/a/.x.0011223344556677.syncline-tmp"] {
            assert!(Location::parse_object(uri).is_err(), "{uri:?}");
        }
    }
}

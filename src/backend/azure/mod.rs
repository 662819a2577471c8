//! `az://`: block blobs in containers of Azure Storage, and of servers that speak its protocol.
//!
//! A small object is one Put Blob, a larger one blocks and a list of them. Blocks that are never listed
//! expire a week after the last was put, so an upload that is given up leaves them: the one way to remove
//! them at once is to commit a blob over them, which would show an object that nobody wrote. Where they were
//! put over an object that exists, no listing tells of them, so that gc does not either.
//!
//! Conditions are the service's own and hold for Put Blob and Put Block List alike (Blob service REST API,
//! "Specifying conditional headers"), so nothing is tried out first, as it is with the many servers of S3.

mod assurance;
mod authorize;
mod client;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod refusal;
#[cfg(test)]
mod tests;
mod upload;
mod walk;
mod xml;
#[cfg(test)]
mod xml_tests;

use ::http::{HeaderName, Method, StatusCode, header};

use crate::backend::http::{
    Answer, Get, Got, HttpAgent, PagedWalk, RangedSource, Reads, Transport, insert,
    parse_http_date, size, tagged,
};
use crate::backend::temporary::{check_temporary, nonce};
use crate::backend::{Backend, ObjectMeta, Orphan, Source, Upload, UploadSpec, Walk};
use crate::config::Config;
use crate::encode::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{AZURE_BLOCK_BYTES_PREFERRED_MIN, AZURE_KEY_CHARS_MAX, AZURE_KEY_SEGMENTS_MAX};
use crate::sync::Arc;
use crate::time::Deadline;

use assurance::Assurance;
use authorize::Authorizer;
use client::{Call, Client, Reply};
use refusal::Refusal;
use upload::AzureUpload;
use walk::UNCOMMITTED_MARK;

/// Tells our object from another's: a random number of each upload in the blob's metadata, whose names
/// have no hyphens.
const NONCE: HeaderName = HeaderName::from_static("x-ms-meta-synclinenonce");

/// The object's checksum as the writer computed it, in the blob's metadata.
const CHECKSUM: HeaderName = HeaderName::from_static("x-ms-meta-synclinechecksum");

/// Opens a container, `account/container`. Nothing is sent yet.
///
/// # Errors
/// `InvalidInput` if the certificates, the proxy or the credentials of the configuration cannot be used.
pub(crate) fn open_azure(place: &str, config: &Config) -> Result<Arc<dyn Backend>> {
    let transport: Arc<dyn Transport> =
        Arc::new(HttpAgent::new(config.http(), config.io_threads())?);
    let direct: Arc<dyn Transport> = Arc::new(HttpAgent::direct(config.http())?);
    Ok(Arc::new(AzureBackend(Shared::new(place, config, transport, direct)?)))
}

/// A container.
#[derive(Debug)]
struct AzureBackend(Arc<Shared>);

/// What a container's uploads, reads and walks share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// `account/container`.
    place: String,
    client: Client,
    assurance: Assurance,
    /// Smallest block but the last of an object.
    block_bytes_min: usize,
}

/// What the server tells of an object.
#[derive(Debug)]
pub(crate) struct Found {
    pub meta: ObjectMeta,
    pub nonce: Option<String>,
}

impl Shared {
    fn new(
        place: &str,
        config: &Config,
        transport: Arc<dyn Transport>,
        direct: Arc<dyn Transport>,
    ) -> Result<Arc<Shared>> {
        let Some((account, container)) = place.split_once('/') else {
            return Err(Error::invalid("open store", format!("{place:?} names no container")));
        };
        let (azure, http) = (config.azure(), config.http());
        let authorizer = Authorizer::new(account, azure, http, Arc::clone(&transport), direct)?;
        Ok(Arc::new(Shared {
            place: place.to_owned(),
            client: Client::new(config, container, transport, authorizer, nonce()?),
            assurance: Assurance::new(azure.integrity.unwrap_or_default()),
            block_bytes_min: config.part_bytes().min(AZURE_BLOCK_BYTES_PREFERRED_MIN),
        }))
    }

    fn uri(&self, key: &str) -> String {
        format!("az://{}/{key}", self.place)
    }

    /// The object, if it is there.
    fn find(&self, key: &str, deadline: &Deadline) -> Result<Option<Found>> {
        match self.head("stat", key, deadline) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn head(&self, operation: &'static str, key: &str, deadline: &Deadline) -> Result<Found> {
        let call = Call::new(operation, Method::HEAD, Some(key));
        let answer = match self.client.call(&call, deadline)? {
            Reply::Answer(answer) => answer,
            Reply::Refused(refusal) => return Err(absent(operation, refusal)),
        };
        let Some(size_bytes) = answer.header("content-length").and_then(size) else {
            let what = "the server does not tell the object's size";
            return Err(Error::new(ErrorKind::Unavailable, operation, what));
        };
        Ok(Found {
            meta: ObjectMeta {
                uri: self.uri(key),
                size_bytes,
                modified: answer.header("last-modified").and_then(parse_http_date),
                etag: Some(tagged(operation, &answer)?),
                checksum: checksum_in(&answer).map(|sum| sum.to_string()),
                write: None,
            },
            nonce: answer.header(NONCE.as_str()).map(str::to_owned),
        })
    }

    /// Removes one object; whether it was there.
    fn remove(&self, key: &str, deadline: &Deadline) -> Result<bool> {
        let call = Call::new("delete", Method::DELETE, Some(key));
        match self.client.call(&call, deadline)? {
            Reply::Refused(refusal) if refusal.is_absence() => Ok(false),
            reply => reply.answer("delete").map(|_| true).map_err(|e| e.with_uri(self.uri(key))),
        }
    }
}

/// The error of a refused read.
fn absent(operation: &'static str, refusal: Refusal) -> Error {
    if refusal.is_absence() {
        return Error::new(ErrorKind::NotFound, operation, "no such object");
    }
    refusal.into_error(operation)
}

/// What the writer kept beside the object. Text of another kind is somebody else's.
fn checksum_in(answer: &Answer) -> Option<Checksum> {
    answer.header(CHECKSUM.as_str())?.parse().ok()
}

impl Reads for Shared {
    fn get(&self, get: Get<'_>, deadline: &Deadline) -> Result<Got> {
        let Get { operation, key, range, if_match, into } = get;
        let mut call = Call::new(operation, Method::GET, Some(key));
        insert(&mut call.headers, header::RANGE, range)?;
        if let Some(etag) = if_match {
            insert(&mut call.headers, header::IF_MATCH, etag)?;
        }
        let reply = match into {
            Some(memory) => self.client.call_into(&call, memory, deadline)?,
            None => self.client.call(&call, deadline)?,
        };
        match reply {
            Reply::Answer(answer) => Ok(Got::Answer(answer)),
            Reply::Refused(refusal) if if_match.is_some() && refusal.is_condition() => {
                Ok(Got::Changed)
            }
            Reply::Refused(refusal) if refusal.status == StatusCode::RANGE_NOT_SATISFIABLE => {
                Ok(Got::OutOfRange(refusal.into_error(operation)))
            }
            Reply::Refused(refusal) => Err(absent(operation, refusal)),
        }
    }

    fn size_of(&self, key: &str, deadline: &Deadline) -> Result<(u64, Option<String>)> {
        let found = self.head("open", key, deadline)?;
        Ok((found.meta.size_bytes, found.meta.etag))
    }

    fn checksum_in(&self, answer: &Answer) -> Option<Checksum> {
        checksum_in(answer)
    }
}

impl Backend for AzureBackend {
    fn uri(&self, key: &str) -> String {
        self.0.uri(key)
    }

    fn host(&self) -> Option<String> {
        Some(self.0.client.host().to_owned())
    }

    fn begin(&self, key: &str, spec: UploadSpec, _: &Deadline) -> Result<Arc<dyn Upload>> {
        check_key(key)?;
        Ok(Arc::new(AzureUpload::new(&self.0, key, spec, nonce()?)))
    }

    fn open(&self, key: &str, deadline: &Deadline) -> Result<Arc<dyn Source>> {
        check_name("open", key)?;
        Ok(Arc::new(RangedSource::open(&self.0, key, deadline)?))
    }

    fn head(&self, key: &str, deadline: &Deadline) -> Result<ObjectMeta> {
        check_name("stat", key)?;
        Ok(self.0.head("stat", key, deadline)?.meta)
    }

    fn list(&self, prefix: &str) -> Box<dyn Walk> {
        Box::new(PagedWalk::new(&self.0, prefix))
    }

    fn delete(&self, keys: &[String], deadline: &Deadline) -> Result<u64> {
        keys.iter().try_for_each(|key| check_name("delete", key))?;
        let mut removed = 0;
        for key in keys {
            removed += u64::from(self.0.remove(key, deadline)?);
        }
        Ok(removed)
    }

    fn clear_prefix(&self, _: &str, _: &Deadline) -> Result<()> {
        Ok(())
    }

    fn orphans(&self, prefix: &str, deadline: &Deadline) -> Result<Vec<Orphan>> {
        walk::orphans(&self.0, prefix, deadline)
    }

    fn delete_orphan(&self, name: &str, deadline: &Deadline) -> Result<()> {
        if name.ends_with(UNCOMMITTED_MARK) {
            let what = "blocks that no blob lists cannot be removed";
            return Err(Error::new(ErrorKind::Unsupported, "delete orphan", what)
                .with_remedy("they expire by themselves a week after the last was put"));
        }
        check_temporary(name)?;
        self.0.remove(name, deadline).map(drop)
    }
}

/// Refuses names that the service does not take, or takes for others.
/// Source: Blob service REST API, "Naming and referencing containers, blobs, and metadata".
fn check_key(key: &str) -> Result<()> {
    let invalid = |what: String| Error::invalid("open writer", what);
    let characters = key.chars().count();
    if characters > AZURE_KEY_CHARS_MAX {
        let most = AZURE_KEY_CHARS_MAX;
        return Err(invalid(format!("the key has {characters} characters; Azure admits {most}")));
    }
    let segments = key.split('/').count();
    if segments > AZURE_KEY_SEGMENTS_MAX {
        let most = AZURE_KEY_SEGMENTS_MAX;
        return Err(invalid(format!("the key has {segments} segments; Azure admits {most}")));
    }
    check_name("open writer", key)
}

/// Refuses names that may become those of other objects on the way: a dot at the end of a segment is
/// dropped, a backslash changed.
fn check_name(operation: &'static str, key: &str) -> Result<()> {
    if key.split('/').any(|segment| segment.ends_with('.')) || key.contains('\\') {
        let what = "a segment of the key ends with a dot, or has a backslash";
        return Err(
            Error::invalid(operation, what).with_remedy("choose a name that Azure keeps as it is")
        );
    }
    Ok(())
}

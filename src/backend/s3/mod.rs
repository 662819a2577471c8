//! `s3://`: objects in buckets of Amazon S3 and of servers that speak its protocol.
//!
//! From rust-s3 come the derivation of signing keys, the percent-encoding and some of the documents'
//! types. Its client is not used: it opens a connection for each request, copies each body and hashes it
//! with SHA-256. Requests are made here and carried by `backend/http`.

mod assurance;
mod client;
mod condition;
mod credentials;
mod endpoint;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod outcome;
mod refusal;
mod send;
mod sign;
#[cfg(test)]
mod sign_tests;
mod source;
mod upload;
mod walk;
mod xml;
#[cfg(test)]
mod xml_tests;

use std::collections::HashSet;

use ::http::{HeaderName, Method, StatusCode, header};

use crate::backend::http::{
    Body, HttpAgent, PagedWalk, RangedSource, Transport, insert, one_line, parse_http_date, size,
    tagged, unreadable,
};
use crate::backend::temporary::{check_temporary, nonce};
use crate::backend::{Backend, ObjectMeta, Orphan, Source, Upload, UploadSpec, Walk};
use crate::config::{Config, origin_problem, region_problem};
use crate::encode::Algorithm;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{KEY_BYTES_MAX, S3_KEYS_PER_REQUEST_MAX};
use crate::sync::Arc;
use crate::time::Deadline;

use assurance::{Assurance, decode, header_of};
use client::{Call, Client, Reply};
use condition::Conditions;
use credentials::CredentialChain;
use refusal::Refusal;
use upload::S3Upload;

/// Tells our object from another's: a random number of each upload in the object's metadata.
const NONCE: HeaderName = HeaderName::from_static("x-amz-meta-syncline-nonce");

const CHECKSUM_MODE: HeaderName = HeaderName::from_static("x-amz-checksum-mode");

/// Opens a bucket. Nothing is sent yet.
///
/// # Errors
/// `InvalidInput` if the certificates or the proxy of the configuration cannot be used.
pub(crate) fn open_s3(bucket: &str, config: &Config) -> Result<Arc<dyn Backend>> {
    let transport: Arc<dyn Transport> =
        Arc::new(HttpAgent::new(config.http(), config.io_threads())?);
    let direct: Arc<dyn Transport> = Arc::new(HttpAgent::direct(config.http())?);
    let chain = CredentialChain::new(config.s3(), config.http(), Arc::clone(&transport), direct);
    // A profile may name it; the others were checked with the configuration.
    if let Some(what) = chain.endpoint().and_then(|url| origin_problem(&url, false)) {
        return Err(Error::invalid("configure", format!("the profile's endpoint_url {what}")));
    }
    if let Some(what) = chain.region().and_then(|region| region_problem(&region)) {
        return Err(Error::invalid("configure", format!("the profile's region {what}")));
    }
    Ok(Arc::new(S3Backend(Shared::new(bucket, config, transport, chain))))
}

/// A bucket.
#[derive(Debug)]
struct S3Backend(Arc<Shared>);

/// What a bucket's uploads, reads and walks share.
#[derive(Debug)]
pub(crate) struct Shared {
    client: Client,
    assurance: Assurance,
    conditions: Conditions,
}

/// What HEAD tells of an object.
#[derive(Debug)]
pub(crate) struct Found {
    pub meta: ObjectMeta,
    pub nonce: Option<String>,
}

impl Shared {
    fn new(
        bucket: &str,
        config: &Config,
        transport: Arc<dyn Transport>,
        chain: CredentialChain,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            client: Client::new(config, bucket, transport, chain),
            assurance: Assurance::new(config.s3().integrity.unwrap_or_default()),
            conditions: Conditions::new(config.s3().create_only.unwrap_or_default()),
        })
    }

    fn uri(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.client.bucket())
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
        let mut call = Call::new(operation, Method::HEAD, Some(key));
        insert(&mut call.headers, CHECKSUM_MODE, "ENABLED")?;
        let mut reply = self.client.call(&call, deadline)?;
        if let Reply::Refused(refusal) = &reply
            && refusal.is_mute()
        {
            match self.explain(operation, key, deadline)? {
                Some(Reply::Answer(_)) => reply = self.client.call(&call, deadline)?,
                Some(refused) => reply = refused,
                None => {}
            }
        }
        let answer = match reply {
            Reply::Answer(answer) => answer,
            Reply::Refused(refusal) => return Err(self.absent(operation, refusal, deadline)),
        };
        let Some(size_bytes) = answer.header("content-length").and_then(size) else {
            let what = "the server does not tell the object's size";
            return Err(Error::new(ErrorKind::Unavailable, operation, what));
        };
        let checksum = [Algorithm::Crc32c, Algorithm::Crc64Nvme, Algorithm::Crc32]
            .into_iter()
            .find_map(|a| decode(a, answer.header(header_of(a).as_str())?));
        // A checksum of the parts' checksums is none of the object.
        let composite = answer.header("x-amz-checksum-type") == Some("COMPOSITE");
        Ok(Found {
            meta: ObjectMeta {
                uri: self.uri(key),
                size_bytes,
                modified: answer.header("last-modified").and_then(parse_http_date),
                etag: Some(tagged(operation, &answer)?),
                checksum: checksum.filter(|_| !composite).map(|sum| sum.to_string()),
                write: None,
            },
            nonce: answer.header(NONCE.as_str()).map(str::to_owned),
        })
    }

    /// Asks for the first byte of an object instead: an answer to HEAD has no body to say what is wrong,
    /// or what can be set right. `None` if this one says nothing either.
    fn explain(
        &self,
        operation: &'static str,
        key: &str,
        deadline: &Deadline,
    ) -> Result<Option<Reply>> {
        let mut call = Call::new(operation, Method::GET, Some(key));
        insert(&mut call.headers, header::RANGE, "bytes=0-0")?;
        let reply = self.client.call(&call, deadline)?;
        Ok(Some(reply).filter(|reply| !matches!(reply, Reply::Refused(r) if r.code.is_empty())))
    }

    /// The error of a refused read. That an object is missing is believed only of a bucket that exists.
    fn absent(&self, operation: &'static str, refusal: Refusal, deadline: &Deadline) -> Error {
        if !refusal.is_absence() {
            return refusal.into_error(operation);
        }
        match self.client.bucket_exists(deadline) {
            Ok(()) => Error::new(ErrorKind::NotFound, operation, "no such object"),
            Err(error) => error,
        }
    }

    /// Whether the server keeps the condition of create-only writes.
    fn condition_held(&self, key: &str, multipart: bool, deadline: &Deadline) -> Result<bool> {
        self.conditions.held(self, key, multipart, deadline)
    }

    /// Removes one object, whether it is there or not.
    fn remove(&self, key: &str, deadline: &Deadline) -> Result<()> {
        let call = Call::new("delete", Method::DELETE, Some(key));
        match self.client.call(&call, deadline)? {
            Reply::Refused(refusal) if refusal.is_absence() => Ok(()),
            reply => reply.answer("delete").map(drop),
        }
    }

    /// Removes many objects by one request. Returns those that are left to be removed one by one: all where
    /// the server does not know that request, and those of which its answer says nothing.
    fn remove_many<'k>(&self, keys: &'k [String], deadline: &Deadline) -> Result<Vec<&'k String>> {
        let body = xml::write_delete(keys);
        let checksum = Algorithm::Crc32c.checksum(body.as_bytes());
        let digest = sign::sha256_hex([body.as_bytes()]);
        let mut call = Call::new("delete", Method::POST, None);
        call.query = &[("delete", "")];
        call.body = Body::of(body.as_bytes());
        call.payload = sign::Payload::Sha256(&digest);
        call.checksum = Some(checksum);
        insert(&mut call.headers, header::CONTENT_TYPE, "application/xml")?;
        insert(&mut call.headers, header_of(Algorithm::Crc32c), &assurance::encode(checksum))?;
        let answer = match self.client.call(&call, deadline)? {
            Reply::Answer(answer) => answer,
            Reply::Refused(refusal)
                if matches!(
                    refusal.status,
                    StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED
                ) =>
            {
                return Ok(keys.iter().collect());
            }
            Reply::Refused(refusal) => return Err(refusal.into_error("delete")),
        };
        let deletion = xml::parse_deletion(&answer.body).map_err(|e| unreadable("delete", e))?;
        match deletion.failed.iter().find(|failed| failed.code != "NoSuchKey") {
            None => {
                let gone = deletion.failed.iter().map(|failed| &failed.key);
                let told: HashSet<&String> = deletion.deleted.iter().chain(gone).collect();
                Ok(keys.iter().filter(|key| !told.contains(key)).collect())
            }
            Some(failed) => {
                let kind = match failed.code.as_str() {
                    "AccessDenied" => ErrorKind::PermissionDenied,
                    _ => ErrorKind::Unavailable,
                };
                let (count, code) = (deletion.failed.len(), &failed.code);
                let words = one_line(&format!("{code}: {}", failed.message));
                let what = format!("{count} objects were not removed: {words}");
                Err(Error::new(kind, "delete", what).with_uri(self.uri(&failed.key)))
            }
        }
    }
}

impl Backend for S3Backend {
    fn uri(&self, key: &str) -> String {
        self.0.uri(key)
    }

    fn host(&self) -> Option<String> {
        self.0.client.host()
    }

    fn begin(&self, key: &str, spec: UploadSpec, _: &Deadline) -> Result<Arc<dyn Upload>> {
        if key.len() > KEY_BYTES_MAX {
            let what = format!("the key has {} bytes; S3 admits {KEY_BYTES_MAX}", key.len());
            return Err(Error::invalid("open writer", what));
        }
        Ok(Arc::new(S3Upload::new(&self.0, key, spec, nonce()?)))
    }

    fn open(&self, key: &str, deadline: &Deadline) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(RangedSource::open(&self.0, key, deadline)?))
    }

    fn head(&self, key: &str, deadline: &Deadline) -> Result<ObjectMeta> {
        Ok(self.0.head("stat", key, deadline)?.meta)
    }

    fn list(&self, prefix: &str) -> Box<dyn Walk> {
        Box::new(PagedWalk::new(&self.0, prefix))
    }

    /// One is looked for before: S3 itself does not tell whether there was anything to remove.
    fn delete(&self, keys: &[String], deadline: &Deadline) -> Result<u64> {
        if let [key] = keys {
            return match self.0.find(key, deadline)? {
                Some(_) => self.0.remove(key, deadline).map(|()| 1),
                None => Ok(0),
            };
        }
        for keys in keys.chunks(S3_KEYS_PER_REQUEST_MAX) {
            let left = self.0.remove_many(keys, deadline)?;
            left.into_iter().try_for_each(|key| self.0.remove(key, deadline))?;
        }
        Ok(keys.len() as u64)
    }

    fn clear_prefix(&self, _: &str, _: &Deadline) -> Result<()> {
        Ok(())
    }

    fn orphans(&self, prefix: &str, deadline: &Deadline) -> Result<Vec<Orphan>> {
        walk::orphans(&self.0, prefix, deadline)
    }

    fn delete_orphan(&self, name: &str, deadline: &Deadline) -> Result<()> {
        if let Some((key, id)) = walk::upload_named(name) {
            let query = [("uploadId", id.as_str())];
            let mut call = Call::new("delete orphan", Method::DELETE, Some(key));
            call.query = &query;
            return match self.0.client.call(&call, deadline)? {
                Reply::Refused(refusal) if refusal.is_absence() => Ok(()),
                reply => reply.answer("delete orphan").map(drop),
            };
        }
        check_temporary(name)?;
        self.0.remove(name, deadline)
    }
}

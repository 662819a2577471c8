//! Whether a server keeps the condition of create-only writes, `If-None-Match: *`. Some take the header
//! and replace the object all the same, so that two writers would both believe to have won. Each store
//! tries it once, on an object of its own under a temporary name.
//! Source: Amazon S3 user guide, "Add preconditions to S3 operations with conditional requests".

use ::http::{Method, StatusCode, header};

use crate::backend::http::{Body, insert, unreadable};
use crate::backend::s3::Shared;
use crate::backend::s3::client::{Call, Reply};
use crate::backend::s3::send::Sent;
use crate::backend::s3::sign::Payload;
use crate::backend::s3::xml::{self, CompletedPart};
use crate::backend::temporary::temporary_name;
use crate::config::CreateOnlyPolicy;
use crate::encode::Algorithm;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::KEY_BYTES_MAX;
use crate::sync::{Mutex, lock};
use crate::time::Deadline;

/// What a store has found out.
#[derive(Debug)]
pub(crate) struct Conditions {
    policy: CreateOnlyPolicy,
    /// Of PutObject and of CompleteMultipartUpload. Held while it is tried: others wait for the outcome.
    put: Mutex<Option<bool>>,
    complete: Mutex<Option<bool>>,
}

impl Conditions {
    pub fn new(policy: CreateOnlyPolicy) -> Conditions {
        Conditions { policy, put: Mutex::new(None), complete: Mutex::new(None) }
    }

    /// Whether the condition holds, for `key`'s neighbourhood as for any.
    ///
    /// # Errors
    /// `Unsupported` if it does not and the policy insists; what the server answers to the trial.
    pub fn held(
        &self,
        shared: &Shared,
        key: &str,
        multipart: bool,
        deadline: &Deadline,
    ) -> Result<bool> {
        let known = if multipart { &self.complete } else { &self.put };
        let mut known = lock(known);
        let held = match *known {
            Some(held) => held,
            None => {
                let trial = Trial::at(shared, key, deadline)?;
                let held = if multipart { trial.complete()? } else { trial.put()? };
                if !held {
                    log::warn!("the server ignores the condition of create-only writes");
                }
                *known.insert(held)
            }
        };
        if held || self.policy == CreateOnlyPolicy::Warn {
            return Ok(held);
        }
        let what = "the server ignores the condition of create-only writes (If-None-Match)";
        Err(Error::new(ErrorKind::Unsupported, "create", what).with_remedy(
            "use another server, or, with one writer at a time, CreateOnlyPolicy::Warn \
             (SYNCLINE_S3_CREATE_ONLY=warn)",
        ))
    }
}

/// An object to try the condition on, removed at the end.
struct Trial<'a> {
    shared: &'a Shared,
    key: String,
    deadline: &'a Deadline,
}

impl<'a> Trial<'a> {
    fn at(shared: &'a Shared, neighbour: &str, deadline: &'a Deadline) -> Result<Trial<'a>> {
        let name = temporary_name("probe")?;
        // The nearest folder in which the name is not too long.
        let mut folder = neighbour.rsplit_once('/').map_or("", |(folder, _)| folder);
        while folder.len() + 1 + name.len() > KEY_BYTES_MAX {
            folder = folder.rsplit_once('/').map_or("", |(folder, _)| folder);
        }
        let slash = if folder.is_empty() { "" } else { "/" };
        Ok(Trial { shared, key: format!("{folder}{slash}{name}"), deadline })
    }

    /// Puts the object; `None` if the condition refused it. The store learns by it, as by any, whether
    /// the server confirms checksums: a create-only object cannot be sent a second time for that.
    fn put_once(&self, conditional: bool) -> Result<Option<()>> {
        let mut call = Call::new("try create-only", Method::PUT, Some(&self.key));
        call.retries_conflict = true;
        if conditional {
            insert(&mut call.headers, header::IF_NONE_MATCH, "*")?;
        }
        let checksum = Algorithm::Crc32c.checksum(b"");
        match self.shared.send(&call, Some(checksum), self.deadline)? {
            Sent::Taken { .. } => Ok(Some(())),
            Sent::Refused(refusal) => created(Reply::Refused(refusal)),
        }
    }

    fn put(&self) -> Result<bool> {
        // A first refusal is of our own object, whose reply was lost: the condition holds.
        if self.put_once(true)?.is_none() {
            return Ok(true);
        }
        Ok(self.put_once(true)?.is_none())
    }

    fn complete(&self) -> Result<bool> {
        self.put_once(false)?;
        let mut create = Call::new("try create-only", Method::POST, Some(&self.key));
        create.query = &[("uploads", "")];
        let answer = self.shared.client.call(&create, self.deadline)?.answer("try create-only")?;
        let id =
            xml::parse_initiated(&answer.body).map_err(|e| unreadable("try create-only", e))?;
        let outcome = self.complete_over(&id);
        let query = [("uploadId", id.as_str())];
        let mut abort = Call::new("try create-only", Method::DELETE, Some(&self.key));
        abort.query = &query;
        if let Err(error) = self.shared.client.call(&abort, self.deadline) {
            log::debug!("{error}");
        }
        outcome
    }

    /// Completes an upload over the object that is there, on condition that none is.
    fn complete_over(&self, id: &str) -> Result<bool> {
        let query = [("partNumber", "1"), ("uploadId", id)];
        let mut part = Call::new("try create-only", Method::PUT, Some(&self.key));
        part.query = &query;
        part.body = Body::of(b"x");
        part.payload = Payload::Unsigned;
        let answer = self.shared.client.call(&part, self.deadline)?.answer("try create-only")?;
        let etag = answer.header("etag").unwrap_or_default().to_owned();
        let body = xml::write_complete([CompletedPart { number: 1, etag: &etag, checksum: None }]);
        let query = [("uploadId", id)];
        let mut complete = Call::new("try create-only", Method::POST, Some(&self.key));
        complete.query = &query;
        complete.body = Body::of(body.as_bytes());
        complete.payload = Payload::Unsigned;
        complete.error_in_success = true;
        complete.retries_conflict = true;
        insert(&mut complete.headers, header::IF_NONE_MATCH, "*")?;
        match self.shared.client.call(&complete, self.deadline)? {
            // An earlier attempt, whose reply was lost, has made the object.
            Reply::Refused(refusal) if refusal.is_absence() && refusal.attempts > 1 => Ok(false),
            reply => Ok(created(reply)?.is_none()),
        }
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.shared.remove(&self.key, self.deadline) {
            log::warn!("the trial object {} was not removed: {error}", self.key);
        }
    }
}

/// `None` if the condition refused the object.
fn created(reply: Reply) -> Result<Option<()>> {
    match reply {
        Reply::Refused(refusal) if refusal.status == StatusCode::PRECONDITION_FAILED => Ok(None),
        reply => reply.answer("try create-only").map(|_| Some(())),
    }
}

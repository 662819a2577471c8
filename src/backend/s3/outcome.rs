//! Whether the object that is there is the one that was sent: after a commit, and after one whose answer
//! was lost or refused.

use std::error::Error as _;
use std::time::Duration;

use ::http::{Method, StatusCode, header};

use crate::backend::http::insert;
use crate::backend::s3::Found;
use crate::backend::s3::assurance::decode;
use crate::backend::s3::client::Call;
use crate::backend::s3::refusal::Refusal;
use crate::backend::s3::upload::{S3Upload, exists};
use crate::backend::s3::xml::Completed;
use crate::backend::{ObjectMeta, Receipt};
use crate::encode::{Algorithm, Checksum};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::ABORT_TIMEOUT;
use crate::time::Deadline;

/// What the object must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whole {
    pub size_bytes: u64,
    pub checksum: Option<Checksum>,
}

impl Whole {
    /// Of these parts, in their order.
    pub fn of(receipts: &[Receipt], size_bytes: u64) -> Whole {
        let combined = receipts.iter().try_fold(None, |whole: Option<Checksum>, receipt| {
            let sum = receipt.checksum?;
            Some(Some(whole.map_or(sum, |whole| whole.combine(sum, receipt.bytes))))
        });
        Whole { size_bytes, checksum: combined.flatten() }
    }
}

impl S3Upload {
    /// Our object, if it is there: the reply to a request that made it may have been lost.
    ///
    /// # Errors
    /// `ChecksumMismatch` if it is ours and not what was sent; it is then removed.
    pub(super) fn find_ours(
        &self,
        whole: &Whole,
        deadline: &Deadline,
    ) -> Result<Option<ObjectMeta>> {
        let found = self.shared.find(&self.key, deadline)?;
        let Some(found) = found.filter(|found| self.is_ours(found, None)) else { return Ok(None) };
        let told = found.meta.checksum.as_deref().and_then(|text| text.parse::<Checksum>().ok());
        let sums = told.zip(whole.checksum);
        let differs = sums.is_some_and(|(a, b)| a.algorithm() == b.algorithm() && a != b);
        if found.meta.size_bytes != whole.size_bytes || differs {
            let what = "the server made another object of it than was sent";
            self.remove_found(&found, deadline);
            return Err(Error::new(ErrorKind::ChecksumMismatch, "commit", what));
        }
        Ok(Some(found.meta))
    }

    /// After a commit that nobody answered: the last request may have been heard all the same. `time` is
    /// that of whoever waits for it.
    pub(super) fn after_silence(
        &self,
        error: Error,
        whole: &Whole,
        time: Duration,
    ) -> Result<ObjectMeta> {
        if error.attempts() == 1 && error.source().is_none() {
            // There was one request, and it was answered.
            return Err(error);
        }
        match self.find_ours(whole, &Deadline::after(time.min(ABORT_TIMEOUT))) {
            Ok(Some(meta)) => Ok(meta),
            Err(wrong) if wrong.kind() == ErrorKind::ChecksumMismatch => Err(wrong),
            _ => Err(error),
        }
    }

    /// What a refused commit means. A refusal of a repeated request may be of what the first one did.
    pub(super) fn refused(
        &self,
        refusal: Refusal,
        whole: &Whole,
        deadline: &Deadline,
    ) -> Result<ObjectMeta> {
        let condition = refusal.status == StatusCode::PRECONDITION_FAILED;
        // Also where the answer was cut short before it told what is absent.
        let absent = refusal.is_absence();
        if (condition || absent)
            && refusal.attempts > 1
            && let Some(meta) = self.find_ours(whole, deadline)?
        {
            return Ok(meta);
        }
        if condition && self.spec.create_only {
            return Err(exists());
        }
        let gone = refusal.is("NoSuchUpload");
        let error = refusal.into_error("commit");
        Err(match error.kind() {
            _ if gone => error.with_kind(ErrorKind::Conflict).with_remedy(
                "the upload was removed meanwhile, by a rule of the bucket or by gc: write the object again",
            ),
            ErrorKind::Conflict => error.with_remedy("write the object again"),
            _ => error,
        })
    }

    /// Whether an object is of this upload. Where the server keeps no metadata, the ETag of the commit's
    /// answer tells.
    fn is_ours(&self, found: &Found, etag: Option<&str>) -> bool {
        match &found.nonce {
            Some(nonce) => *nonce == self.nonce,
            None => etag.is_some() && found.meta.etag.as_deref() == etag,
        }
    }

    /// Removes the object that is not what was sent, if it is still the one of this commit.
    pub(super) fn discard(&self, etag: Option<&str>, deadline: &Deadline) {
        match self.shared.find(&self.key, deadline) {
            Ok(Some(found)) if self.is_ours(&found, etag) => self.remove_found(&found, deadline),
            Ok(_) => {}
            Err(error) => log::warn!("{error}"),
        }
    }

    /// Removes what was found, unless it has been replaced since.
    fn remove_found(&self, found: &Found, deadline: &Deadline) {
        let mut call = Call::new("remove damaged object", Method::DELETE, Some(&self.key));
        let etag = found.meta.etag.as_deref();
        let named = etag.map_or(Ok(()), |etag| insert(&mut call.headers, header::IF_MATCH, etag));
        if let Err(error) = named.and_then(|()| self.shared.client.call(&call, deadline)) {
            log::warn!("{error}");
        }
    }

    /// Compares what the server made of the parts with what was sent.
    pub(super) fn prove_object(
        &self,
        completed: &Completed,
        size_bytes: u64,
        expected: Option<Checksum>,
        deadline: &Deadline,
    ) -> Result<()> {
        let etag = completed.etag.as_deref();
        let wrong = |what: String| Err(Error::new(ErrorKind::ChecksumMismatch, "commit", what));
        if let Some(ours) = expected
            && let Some(theirs) = told(completed, ours)
        {
            if theirs == ours {
                return Ok(());
            }
            self.discard(etag, deadline);
            return wrong(format!(
                "the server made an object of checksum {theirs}, {ours} was sent"
            ));
        }
        // Nothing was said of the whole: its size is asked for.
        match self.shared.find(&self.key, deadline)? {
            Some(found) if found.meta.size_bytes != size_bytes && self.is_ours(&found, etag) => {
                self.remove_found(&found, deadline);
                let theirs = found.meta.size_bytes;
                wrong(format!(
                    "the server made an object of {theirs} bytes, {size_bytes} were sent"
                ))
            }
            // As it should be; or another writer has replaced it already.
            Some(_) => Ok(()),
            None => Err(Error::new(ErrorKind::Incomplete, "commit", "the object is not there")),
        }
    }
}

/// The checksum of the whole object in the answer to a completion, of the same algorithm as ours.
fn told(completed: &Completed, ours: Checksum) -> Option<Checksum> {
    let text = match ours.algorithm() {
        Algorithm::Crc32c => &completed.crc32c,
        Algorithm::Crc32 => &completed.crc32,
        Algorithm::Crc64Nvme => &completed.crc64nvme,
    };
    // A checksum of the parts' checksums is none of the object.
    let composite = completed.checksum_type.as_deref() == Some("COMPOSITE");
    decode(ours.algorithm(), text.as_deref()?).filter(|_| !composite)
}

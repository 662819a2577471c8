//! An upload to S3: one PutObject for what fits one part, else a multipart upload that begins with the
//! first part. Source: Amazon S3 API reference, CreateMultipartUpload, UploadPart,
//! CompleteMultipartUpload, AbortMultipartUpload and ListParts.

use std::collections::BTreeMap;
use std::time::Duration;

use ::http::{HeaderName, Method, StatusCode, header};

use crate::backend::http::{Body, Flight, Flights, ended, insert, unreadable};
use crate::backend::s3::assurance::{element_of, encode, header_of, name_of};
use crate::backend::s3::client::{Call, Reply};
use crate::backend::s3::outcome::Whole;
use crate::backend::s3::send::Sent;
use crate::backend::s3::sign::{Payload, sha256_hex};
use crate::backend::s3::xml::{self, CompletedPart};
use crate::backend::s3::{NONCE, Shared};
use crate::backend::{
    Alignment, IoMode, ObjectMeta, PartLimits, PartView, Proof, Published, Receipt, ServerReport,
    Upload, UploadSpec,
};
use crate::encode::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{ABORT_TIMEOUT, S3_PART_BYTES_MAX, S3_PART_BYTES_MIN, S3_PARTS_MAX};
use crate::sync::{Arc, Mutex, lock, sleep};
use crate::time::Deadline;

const IF_NONE_MATCH: HeaderName = header::IF_NONE_MATCH;
const CHECKSUM_TYPE: HeaderName = HeaderName::from_static("x-amz-checksum-type");
const CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("x-amz-checksum-algorithm");
const OBJECT_SIZE: HeaderName = HeaderName::from_static("x-amz-mp-object-size");

/// Pause between two attempts to abort an upload whose parts the server still takes.
const ABORT_PAUSE: Duration = Duration::from_millis(100);

/// One object on its way.
#[derive(Debug)]
pub(crate) struct S3Upload {
    pub(super) shared: Arc<Shared>,
    pub(super) key: String,
    pub(super) spec: UploadSpec,
    /// Random, kept in the object's metadata: tells our object from another's when a reply was lost.
    pub(super) nonce: String,
    /// The multipart upload; `None` before the first part. Held while it is created.
    id: Mutex<Option<Arc<str>>>,
    /// Ended by `abort`: nothing more is sent.
    flights: Flights,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the server said of each part, by index.
    parts: BTreeMap<u64, Taken>,
    /// The least that is proven of any part.
    proof: Option<Proof>,
    create_only_held: Option<bool>,
    /// Why there is no multipart upload.
    not_created: Option<Error>,
}

#[derive(Debug)]
struct Taken {
    etag: String,
    /// As confirmed.
    checksum: Option<Checksum>,
}

impl S3Upload {
    pub fn new(shared: &Arc<Shared>, key: &str, spec: UploadSpec, nonce: String) -> S3Upload {
        S3Upload {
            shared: Arc::clone(shared),
            key: key.to_owned(),
            spec,
            nonce,
            id: Mutex::new(None),
            flights: Flights::default(),
            state: Mutex::default(),
        }
    }

    fn call<'a>(&'a self, operation: &'static str, method: Method) -> Call<'a> {
        let mut call = Call::new(operation, method, Some(&self.key));
        call.cancelled = Some(self.flights.ended());
        call
    }

    /// The multipart upload's id; creates it when first asked.
    fn id(&self, deadline: &Deadline) -> Result<Arc<str>> {
        let mut id = lock(&self.id);
        if let Some(id) = &*id {
            return Ok(Arc::clone(id));
        }
        // The parts that waited meanwhile do not try in vain as well.
        if let Some(error) = &lock(&self.state).not_created {
            return Err(error.clone());
        }
        let new = self.create(deadline);
        let new = new.inspect_err(|e| lock(&self.state).not_created = Some(e.clone()))?;
        Ok(Arc::clone(id.insert(new)))
    }

    fn create(&self, deadline: &Deadline) -> Result<Arc<str>> {
        self.before_creating(true, deadline)?;
        let assurance = &self.shared.assurance;
        let query = [("uploads", "")];
        let mut gives_way = false;
        loop {
            let declared = assurance.declares(self.spec.algorithm).filter(|_| !gives_way);
            let mut call = self.call("open upload", Method::POST);
            call.query = &query;
            insert(&mut call.headers, NONCE, &self.nonce)?;
            if let Some(algorithm) = declared {
                insert(&mut call.headers, CHECKSUM_ALGORITHM, name_of(algorithm))?;
                insert(&mut call.headers, CHECKSUM_TYPE, "FULL_OBJECT")?;
            }
            let answer = match self.shared.client.call(&call, deadline)? {
                Reply::Answer(answer) => answer,
                Reply::Refused(refusal)
                    if declared.is_some()
                        && refusal.may_be_of_headers()
                        && assurance.may_give_way() =>
                {
                    gives_way = true;
                    continue;
                }
                Reply::Refused(refusal) => return Err(refusal.into_error("open upload")),
            };
            if gives_way {
                assurance.give_way();
            }
            let new =
                xml::parse_initiated(&answer.body).map_err(|e| unreadable("open upload", e))?;
            return Ok(Arc::from(new));
        }
    }

    /// Sees to it, for a create-only write, that the server keeps the condition, and that the object is
    /// not there yet: a large one is not sent in vain.
    fn before_creating(&self, multipart: bool, deadline: &Deadline) -> Result<()> {
        if !self.spec.create_only {
            return Ok(());
        }
        let held = self.shared.condition_held(&self.key, multipart, deadline)?;
        lock(&self.state).create_only_held = Some(held);
        if (multipart || !held) && self.shared.find(&self.key, deadline)?.is_some() {
            return Err(exists());
        }
        Ok(())
    }

    fn record_proof(&self, proof: Proof) {
        let mut state = lock(&self.state);
        state.proof = Some(state.proof.map_or(proof, |known| known.min(proof)));
    }

    fn meta(&self, size_bytes: u64, etag: Option<String>) -> ObjectMeta {
        ObjectMeta {
            uri: self.shared.uri(&self.key),
            size_bytes,
            modified: None,
            etag,
            checksum: None,
            write: None,
        }
    }

    /// The request that makes the object of its parts.
    fn complete(
        &self,
        id: &str,
        receipts: &[Receipt],
        size_bytes: u64,
        deadline: &Deadline,
        alive: &dyn Fn(),
    ) -> Result<(Reply, Option<Checksum>)> {
        let (body, expected) = self.completing(receipts)?;
        let digest = sha256_hex([body.as_bytes()]);
        let query = [("uploadId", id)];
        let mut call = self.call("commit", Method::POST);
        call.query = &query;
        call.body = Body::of(body.as_bytes());
        call.payload = Payload::Sha256(&digest);
        call.patient = true;
        call.error_in_success = true;
        insert(&mut call.headers, header::CONTENT_TYPE, "application/xml")?;
        if let Some(sum) = expected {
            insert(&mut call.headers, header_of(sum.algorithm()), &encode(sum))?;
            insert(&mut call.headers, CHECKSUM_TYPE, "FULL_OBJECT")?;
            insert(&mut call.headers, OBJECT_SIZE, &size_bytes.to_string())?;
        }
        if self.spec.create_only {
            insert(&mut call.headers, IF_NONE_MATCH, "*")?;
        }
        let reply = self.shared.client.call_patiently(&call, deadline, alive)?;
        Ok((reply, expected))
    }

    /// The list of the parts, and the checksum of the whole where the server confirmed each part's.
    fn completing(&self, receipts: &[Receipt]) -> Result<(String, Option<Checksum>)> {
        let state = lock(&self.state);
        let mut whole: Option<Checksum> = None;
        let mut all_confirmed = true;
        let mut listed = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            let taken = state.parts.get(&receipt.index).ok_or_else(|| {
                Error::new(ErrorKind::Incomplete, "commit", "the part was never taken")
                    .with_part(receipt.index)
            })?;
            match receipt.checksum.filter(|_| taken.checksum == receipt.checksum) {
                Some(sum) => whole = Some(whole.map_or(sum, |w| w.combine(sum, receipt.bytes))),
                None => all_confirmed = false,
            }
            let sum = taken.checksum.map(|sum| (element_of(sum.algorithm()), encode(sum)));
            listed.push((receipt.index as u32 + 1, taken.etag.as_str(), sum));
        }
        let parts = listed.iter().map(|(number, etag, sum)| CompletedPart {
            number: *number,
            etag,
            checksum: sum.as_ref().map(|(element, text)| (*element, text.as_str())),
        });
        Ok((xml::write_complete(parts), whole.filter(|_| all_confirmed)))
    }

    /// Aborts until the server knows the upload no more: a part that was under way may have come after.
    fn abort_upload(&self, id: &str, deadline: &Deadline) -> Result<()> {
        let query = [("uploadId", id)];
        let mut abort = Call::new("cancel", Method::DELETE, Some(&self.key));
        abort.query = &query;
        let mut look = Call::new("cancel", Method::GET, Some(&self.key));
        look.query = &query;
        loop {
            match self.shared.client.call(&abort, deadline)? {
                Reply::Refused(refusal) if refusal.status == StatusCode::NOT_FOUND => return Ok(()),
                reply => drop(reply.answer("cancel")?),
            }
            match self.shared.client.call(&look, deadline)? {
                Reply::Refused(refusal) if refusal.status == StatusCode::NOT_FOUND => return Ok(()),
                // It was told to go; whether it went cannot be seen.
                Reply::Refused(_) => return Ok(()),
                Reply::Answer(_) => {}
            }
            if deadline.remaining() <= ABORT_PAUSE {
                return Err(Error::new(ErrorKind::TimedOut, "cancel", "the upload is still there")
                    .with_remedy("remove it with gc"));
            }
            sleep(ABORT_PAUSE);
        }
    }
}

/// A part under way. The last one to end after an abort repeats it, for it may have come late.
struct InFlight<'a> {
    upload: &'a S3Upload,
    /// `None` only while dropped.
    flight: Option<Flight<'a>>,
}

impl<'a> InFlight<'a> {
    fn begin(upload: &'a S3Upload) -> Result<InFlight<'a>> {
        Ok(InFlight { upload, flight: Some(upload.flights.begin()?) })
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let upload = self.upload;
        drop(self.flight.take());
        if upload.flights.are_over()
            && let Some(id) = lock(&upload.id).clone()
            && let Err(error) = upload.abort_upload(&id, &Deadline::after(ABORT_TIMEOUT))
        {
            log::warn!("{error}");
        }
    }
}

impl Upload for S3Upload {
    fn alignment(&self) -> Alignment {
        Alignment::NONE
    }

    fn limits(&self) -> PartLimits {
        PartLimits {
            bytes_min: S3_PART_BYTES_MIN,
            bytes_max: S3_PART_BYTES_MAX,
            count_max: S3_PARTS_MAX,
            whole: true,
        }
    }

    fn mode(&self) -> IoMode {
        IoMode::Network
    }

    fn server(&self) -> ServerReport {
        let state = lock(&self.state);
        ServerReport { proof: state.proof, create_only_held: state.create_only_held }
    }

    fn put_part(&self, part: &PartView<'_>, deadline: &Deadline) -> Result<Receipt> {
        let _in_flight = InFlight::begin(self)?;
        let id = self.id(deadline)?;
        let number = (part.index + 1).to_string();
        let query = [("partNumber", number.as_str()), ("uploadId", &*id)];
        let mut call = self.call("write part", Method::PUT);
        call.query = &query;
        call.body = Body { first: part.bytes, more: part.more };
        let (answer, proof, checksum) = match self.shared.send(&call, part.checksum, deadline)? {
            Sent::Taken { answer, proof, checksum } => (answer, proof, checksum),
            Sent::Refused(refusal) if refusal.is("NoSuchUpload") => {
                let error = refusal.into_error("write part").with_kind(ErrorKind::Conflict);
                return Err(
                    error.with_remedy("the upload was removed meanwhile: write the object again")
                );
            }
            Sent::Refused(refusal) => return Err(refusal.into_error("write part")),
        };
        let Some(etag) = answer.header("etag").filter(|etag| !etag.is_empty()) else {
            return Err(without_etag("write part", "part"));
        };
        let taken = Taken {
            etag: etag.to_owned(),
            checksum: checksum.filter(|_| proof == Proof::ChecksumVerified),
        };
        lock(&self.state).parts.insert(part.index, taken);
        self.record_proof(proof);
        Ok(part.receipt())
    }

    fn publish(
        &self,
        receipts: &[Receipt],
        size_bytes: u64,
        deadline: &Deadline,
        alive: &dyn Fn(),
    ) -> Result<Published> {
        self.assemble(receipts, size_bytes, deadline, alive).map(Published::durable)
    }

    fn put_whole(&self, part: &PartView<'_>, deadline: &Deadline) -> Result<ObjectMeta> {
        let _in_flight = InFlight::begin(self)?;
        self.before_creating(false, deadline)?;
        let mut call = self.call("commit", Method::PUT);
        call.body = Body { first: part.bytes, more: part.more };
        call.retries_conflict = true;
        insert(&mut call.headers, NONCE, &self.nonce)?;
        if self.spec.create_only {
            insert(&mut call.headers, IF_NONE_MATCH, "*")?;
        }
        let whole = Whole { size_bytes: part.total_bytes(), checksum: part.checksum };
        let made = match self.shared.send(&call, part.checksum, deadline) {
            Ok(Sent::Taken { answer, proof, .. }) => {
                match answer.header("etag").filter(|etag| !etag.is_empty()) {
                    Some(etag) => {
                        self.record_proof(proof);
                        return Ok(self.meta(whole.size_bytes, Some(etag.to_owned())));
                    }
                    None => self
                        .find_ours(&whole, deadline)?
                        .ok_or_else(|| without_etag("commit", "object"))?,
                }
            }
            Ok(Sent::Refused(refusal)) => self.refused(refusal, &whole, deadline)?,
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut) => {
                self.after_silence(error, &whole, deadline.remaining())?
            }
            Err(error) => {
                // It was taken, and is not what it should be or not proven to be.
                let taken = [ErrorKind::ChecksumMismatch, ErrorKind::Unsupported];
                if taken.contains(&error.kind()) {
                    self.discard(None, deadline);
                }
                return Err(error);
            }
        };
        let told = made.checksum.as_deref().and_then(|text| text.parse::<Checksum>().ok());
        let verified = told.is_some() && told == whole.checksum;
        self.record_proof(if verified { Proof::ChecksumVerified } else { Proof::None });
        Ok(made)
    }

    fn abort(&self, deadline: &Deadline) -> Result<()> {
        self.flights.end(deadline);
        let id = lock(&self.id).clone();
        id.map_or(Ok(()), |id| self.abort_upload(&id, deadline))
    }
}

impl S3Upload {
    /// Makes an object of the parts that were sent.
    fn assemble(
        &self,
        receipts: &[Receipt],
        size_bytes: u64,
        deadline: &Deadline,
        alive: &dyn Fn(),
    ) -> Result<ObjectMeta> {
        let id = lock(&self.id).clone().ok_or_else(ended)?;
        let whole = Whole::of(receipts, size_bytes);
        let (reply, expected) = match self.complete(&id, receipts, size_bytes, deadline, alive) {
            Ok(replied) => replied,
            Err(error) => return self.after_silence(error, &whole, ABORT_TIMEOUT),
        };
        // The server may have taken its time; what follows has its own.
        let deadline = &deadline.renewed();
        let answer = match reply {
            Reply::Answer(answer) => answer,
            Reply::Refused(refusal) => return self.refused(refusal, &whole, deadline),
        };
        let completed = match xml::parse_completed(&answer.body) {
            Ok(Ok(completed)) => completed,
            Ok(Err(refused)) => {
                let what = format!("the server answers {}: {}", refused.code, refused.message);
                return Err(Error::new(ErrorKind::Unavailable, "commit", what));
            }
            Err(error) => {
                let found = self.find_ours(&whole, deadline)?;
                return found.ok_or_else(|| unreadable("commit", error));
            }
        };
        self.prove_object(&completed, size_bytes, expected, deadline)?;
        Ok(self.meta(size_bytes, completed.etag))
    }
}

/// What took our bytes gave no sign that it stores them, as every server of the protocol does: perhaps
/// something in between has answered for it.
fn without_etag(operation: &'static str, what: &str) -> Error {
    let what = format!("the server took the {what} and gave it no ETag");
    Error::new(ErrorKind::Unavailable, operation, what)
        .with_remedy("check the endpoint, and what stands between")
}

/// The error of a create-only write where the object is.
pub(super) fn exists() -> Error {
    Error::new(ErrorKind::AlreadyExists, "create", "the object exists")
}

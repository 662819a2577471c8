//! An upload to Azure: one Put Blob for what fits one part, else a Put Block for each part and a Put
//! Block List. Source: Blob service REST API, "Put Blob", "Put Block" and "Put Block List".

use std::time::Duration;

use ::http::{HeaderName, Method, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::backend::azure::assurance::{Outcome, Sending};
use crate::backend::azure::client::{Call, Reply};
use crate::backend::azure::refusal::Refusal;
use crate::backend::azure::{CHECKSUM, Found, NONCE, Shared, xml};
use crate::backend::http::{Answer, Body, Flights, ended, insert};
use crate::backend::{
    Alignment, IoMode, ObjectMeta, PartLimits, PartView, Proof, Published, Receipt, ServerReport,
    Upload, UploadSpec,
};
use crate::encode::{Algorithm, Checksum};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{ABORT_TIMEOUT, AZURE_BLOCK_BYTES_MAX, AZURE_BLOCKS_MAX};
use crate::sync::{Arc, Mutex, lock};
use crate::time::Deadline;

const BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");

/// One object on its way.
#[derive(Debug)]
pub(crate) struct AzureUpload {
    shared: Arc<Shared>,
    key: String,
    spec: UploadSpec,
    /// Random: in the ids of the blocks, so that writers of one name do not take each other's, and in the
    /// object's metadata, which tells our object from another's when a reply was lost.
    nonce: String,
    transport: Option<Algorithm>,
    /// Whether it was looked for an object that must not be there. Held while that is done.
    looked: Mutex<bool>,
    /// Ended by `abort`: nothing more is sent.
    flights: Flights,
    /// The least that is proven of any part.
    proof: Mutex<Option<Proof>>,
}

/// What became of a body.
enum Sent {
    Taken(Answer),
    Refused(Refusal),
}

impl AzureUpload {
    pub fn new(shared: &Arc<Shared>, key: &str, spec: UploadSpec, nonce: String) -> AzureUpload {
        let summed = spec.algorithm.is_some();
        AzureUpload {
            shared: Arc::clone(shared),
            key: key.to_owned(),
            spec,
            nonce,
            transport: shared.assurance.transport_checksum().filter(|_| summed),
            looked: Mutex::new(false),
            flights: Flights::default(),
            proof: Mutex::new(None),
        }
    }

    fn call<'a>(&'a self, operation: &'static str) -> Call<'a> {
        let mut call = Call::new(operation, Method::PUT, Some(&self.key));
        call.cancelled = Some(self.flights.ended());
        call
    }

    /// The headers of a request that makes the object.
    fn describe(&self, call: &mut Call<'_>, checksum: Option<Checksum>) -> Result<()> {
        insert(&mut call.headers, NONCE, &self.nonce)?;
        if let Some(sum) = checksum {
            insert(&mut call.headers, CHECKSUM, &sum.to_string())?;
        }
        if self.spec.create_only {
            insert(&mut call.headers, header::IF_NONE_MATCH, "*")?;
        }
        Ok(())
    }

    /// A large create-only object is not sent in vain.
    fn look_first(&self, deadline: &Deadline) -> Result<()> {
        let mut looked = lock(&self.looked);
        if self.spec.create_only && !*looked && self.shared.find(&self.key, deadline)?.is_some() {
            return Err(exists());
        }
        *looked = true;
        Ok(())
    }

    /// Sends a part with proof, as often as the store learns that another proof is wanted. `told`: see
    /// [`judge`](crate::backend::azure::assurance::Assurance::judge).
    fn send(
        &self,
        call: &Call<'_>,
        part: &PartView<'_>,
        told: bool,
        deadline: &Deadline,
    ) -> Result<Sent> {
        let is_crc64 = |sum: &Checksum| sum.algorithm() == Algorithm::Crc64Nvme;
        let crc64 = [part.transport, part.checksum].into_iter().flatten().find(is_crc64);
        let assurance = &self.shared.assurance;
        loop {
            let sending = assurance.sending(crc64, part.checksum.is_some(), call.body);
            let mut call = call.clone();
            sending.add_to(&mut call.headers)?;
            call.checksum = crc64.or(part.checksum);
            let answer = match self.shared.client.call(&call, deadline)? {
                Reply::Answer(answer) => answer,
                Reply::Refused(refusal)
                    if matches!(sending, Sending::Crc64(_))
                        && refusal.is_of_header()
                        && assurance.gives_way() =>
                {
                    continue;
                }
                Reply::Refused(refusal) => return Ok(Sent::Refused(refusal)),
            };
            if let Outcome::Proven(proof) = assurance.judge(&sending, &answer, told)? {
                let mut least = lock(&self.proof);
                *least = Some(least.map_or(proof, |known| known.min(proof)));
                return Ok(Sent::Taken(answer));
            }
        }
    }

    fn meta(&self, size_bytes: u64, answer: &Answer) -> ObjectMeta {
        ObjectMeta {
            uri: self.shared.uri(&self.key),
            size_bytes,
            modified: None,
            etag: answer.header("etag").map(str::to_owned),
            checksum: None,
            write: None,
        }
    }

    fn is_ours(&self, found: &Found) -> bool {
        found.nonce.as_deref() == Some(&*self.nonce)
    }

    /// Our object, if it is there: the reply to a request that made it may have been lost.
    fn find_ours(&self, deadline: &Deadline) -> Result<Option<ObjectMeta>> {
        let found = self.shared.find(&self.key, deadline)?;
        Ok(found.filter(|found| self.is_ours(found)).map(|found| found.meta))
    }

    /// After a request that nobody answered: the last one may have been heard all the same. `time` is that of
    /// whoever waits for it.
    fn perhaps_ours(&self, error: Error, time: Duration) -> Result<ObjectMeta> {
        if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut) {
            return Err(error);
        }
        let deadline = Deadline::after(time.min(ABORT_TIMEOUT));
        self.find_ours(&deadline).ok().flatten().ok_or(error)
    }

    /// What a refused commit means. A refusal of a repeated request may be of what the first one did; and
    /// a commit of another's discards our blocks, so that our list is wrong.
    fn refused(&self, refusal: Refusal, deadline: &Deadline) -> Result<ObjectMeta> {
        let condition = refusal.is_condition() && self.spec.create_only;
        let blocks_gone = refusal.is("InvalidBlockList");
        if !condition && !blocks_gone {
            return Err(refusal.into_error("commit"));
        }
        if condition && refusal.attempts == 1 {
            return Err(exists());
        }
        match self.shared.find(&self.key, deadline)? {
            Some(found) if self.is_ours(&found) => Ok(found.meta),
            Some(_) if self.spec.create_only => Err(exists()),
            _ if condition => Err(exists()),
            _ => Err(refusal.into_error("commit").with_remedy(
                "another writer's commit has discarded the blocks, or they have expired: write \
                 the object again",
            )),
        }
    }

    /// Compares the size of the blob with what was sent: no answer told it.
    fn prove_size(&self, meta: &ObjectMeta, deadline: &Deadline) -> Result<()> {
        let found = self.shared.find(&self.key, deadline).map_err(|error| {
            error.with_remedy(
                "the object is visible, but the server does not let its size be compared: look at \
                 it, or write it again",
            )
        })?;
        // Another writer may have replaced or removed it already.
        let Some(found) = found.filter(|found| self.is_ours(found)) else { return Ok(()) };
        let (theirs, ours) = (found.meta.size_bytes, meta.size_bytes);
        if theirs == ours {
            return Ok(());
        }
        self.discard(found.meta.etag.as_deref(), deadline);
        let what = format!("the server made a blob of {theirs} bytes, {ours} were sent");
        Err(Error::new(ErrorKind::ChecksumMismatch, "commit", what))
    }

    /// Removes the object that is not what was sent, if it is still this one.
    fn discard(&self, etag: Option<&str>, deadline: &Deadline) {
        let Some(etag) = etag else { return };
        let mut call = Call::new("remove damaged object", Method::DELETE, Some(&self.key));
        let removed = insert(&mut call.headers, header::IF_MATCH, etag)
            .and_then(|()| self.shared.client.call(&call, deadline));
        if let Err(error) = removed {
            log::warn!("{error}");
        }
    }

    /// The id of a block: all of one length, as the service demands of the blocks of a blob.
    fn block_id(&self, index: u64) -> String {
        STANDARD.encode(format!("{}{index:08}", self.nonce))
    }
}

impl Upload for AzureUpload {
    fn alignment(&self) -> Alignment {
        Alignment::NONE
    }

    fn limits(&self) -> PartLimits {
        PartLimits {
            bytes_min: self.shared.block_bytes_min,
            bytes_max: AZURE_BLOCK_BYTES_MAX,
            count_max: AZURE_BLOCKS_MAX,
            whole: true,
        }
    }

    fn transport_checksum(&self) -> Option<Algorithm> {
        self.transport
    }

    fn mode(&self) -> IoMode {
        IoMode::Network
    }

    fn server(&self) -> ServerReport {
        let create_only_held = self.spec.create_only.then_some(true);
        ServerReport { proof: *lock(&self.proof), create_only_held }
    }

    fn put_part(&self, part: &PartView<'_>, deadline: &Deadline) -> Result<Receipt> {
        let _flight = self.flights.begin()?;
        self.look_first(deadline)?;
        let id = self.block_id(part.index);
        let query = [("comp", "block"), ("blockid", id.as_str())];
        let mut call = self.call("write part");
        call.query = &query;
        call.body = Body { first: part.bytes, more: part.more };
        match self.send(&call, part, true, deadline)? {
            Sent::Taken(_) => Ok(part.receipt()),
            Sent::Refused(refusal) => Err(refusal.into_error("write part")),
        }
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
        let _flight = self.flights.begin()?;
        let mut call = self.call("commit");
        call.body = Body { first: part.bytes, more: part.more };
        insert(&mut call.headers, BLOB_TYPE, "BlockBlob")?;
        self.describe(&mut call, part.checksum)?;
        match self.send(&call, part, false, deadline) {
            Ok(Sent::Taken(answer)) => Ok(self.meta(part.total_bytes(), &answer)),
            Ok(Sent::Refused(refusal)) => self.refused(refusal, deadline),
            Err(error) => {
                if error.kind() == ErrorKind::ChecksumMismatch
                    && let Ok(Some(meta)) = self.find_ours(deadline)
                {
                    self.discard(meta.etag.as_deref(), deadline);
                }
                self.perhaps_ours(error, deadline.remaining())
            }
        }
    }

    /// Blocks that were put stay and expire by themselves (see the module).
    fn abort(&self, deadline: &Deadline) -> Result<()> {
        self.flights.end(deadline);
        Ok(())
    }
}

impl AzureUpload {
    /// Makes a blob of the blocks that were sent.
    fn assemble(
        &self,
        receipts: &[Receipt],
        size_bytes: u64,
        deadline: &Deadline,
        alive: &dyn Fn(),
    ) -> Result<ObjectMeta> {
        let _flight = self.flights.begin()?;
        if receipts.is_empty() {
            return Err(ended());
        }
        let ids: Vec<String> = receipts.iter().map(|r| self.block_id(r.index)).collect();
        let body = xml::write_block_list(ids.iter().map(String::as_str));
        let mut call = self.call("commit");
        call.query = &[("comp", "blocklist")];
        call.body = Body::of(body.as_bytes());
        call.patient = true;
        self.describe(&mut call, combined(receipts))?;
        let reply = match self.shared.client.call_patiently(&call, deadline, alive) {
            Ok(reply) => reply,
            Err(error) => return self.perhaps_ours(error, ABORT_TIMEOUT),
        };
        alive();
        // The answer may have taken longer than the deadline.
        let deadline = deadline.renewed();
        let answer = match reply {
            Reply::Answer(answer) => answer,
            Reply::Refused(refusal) => return self.refused(refusal, &deadline),
        };
        let meta = self.meta(size_bytes, &answer);
        self.prove_size(&meta, &deadline)?;
        Ok(meta)
    }
}

/// The checksum of the parts one after the other.
fn combined(receipts: &[Receipt]) -> Option<Checksum> {
    let (first, rest) = receipts.split_first()?;
    rest.iter()
        .try_fold(first.checksum?, |whole, next| Some(whole.combine(next.checksum?, next.bytes)))
}

fn exists() -> Error {
    Error::new(ErrorKind::AlreadyExists, "create", "the object exists")
}

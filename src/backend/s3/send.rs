//! Sending a body so that the server proves what it took of it.

use ::http::header;

use crate::backend::Proof;
use crate::backend::http::Answer;
use crate::backend::s3::Shared;
use crate::backend::s3::assurance::Outcome;
use crate::backend::s3::client::{Call, Reply};
use crate::backend::s3::refusal::Refusal;
use crate::encode::Checksum;
use crate::error::Result;
use crate::time::Deadline;

/// What became of a body.
#[derive(Debug)]
pub(crate) enum Sent {
    Taken {
        answer: Answer,
        proof: Proof,
        /// The checksum that was sent with it.
        checksum: Option<Checksum>,
    },
    Refused(Refusal),
}

impl Shared {
    /// Sends a body with proof, as often as the store learns that another proof is wanted.
    pub fn send(
        &self,
        call: &Call<'_>,
        checksum: Option<Checksum>,
        deadline: &Deadline,
    ) -> Result<Sent> {
        // Set once the checksum's header was perhaps what was refused. That is known when the same
        // is taken without; a refusal of something else must not cost the store its proof.
        let mut gives_way = false;
        loop {
            let sending = match gives_way {
                true => self.assurance.without_checksum(call.body),
                false => self.assurance.sending(checksum, call.body),
            };
            let mut call = call.clone();
            sending.add_to(&mut call.headers)?;
            call.payload = sending.payload();
            call.checksum = checksum;
            let answer = match self.client.call(&call, deadline)? {
                Reply::Answer(answer) => answer,
                Reply::Refused(refusal)
                    if sending.checksum.is_some()
                        && refusal.may_be_of_headers()
                        && self.assurance.may_give_way() =>
                {
                    gives_way = true;
                    continue;
                }
                Reply::Refused(refusal) => return Ok(Sent::Refused(refusal)),
            };
            if gives_way {
                self.assurance.give_way();
            }
            let checksum = sending.checksum;
            match self.assurance.judge(&sending, &answer)? {
                Outcome::Proven(proof) => return Ok(Sent::Taken { answer, proof, checksum }),
                // A create-only object exists by now and would refuse itself.
                Outcome::SendAgain if call.headers.contains_key(header::IF_NONE_MATCH) => {
                    return Ok(Sent::Taken { answer, proof: Proof::None, checksum: None });
                }
                Outcome::SendAgain => {}
            }
        }
    }
}

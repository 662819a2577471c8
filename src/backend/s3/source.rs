//! Reading objects of S3. Source: Amazon S3 API reference, GetObject.

use ::http::{Method, StatusCode, header};

use crate::backend::http::{Get, Got, Reads, insert};
use crate::backend::s3::Shared;
use crate::backend::s3::client::{Call, Reply};
use crate::error::Result;
use crate::time::Deadline;

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
            Reply::Refused(refusal) => match refusal.status {
                StatusCode::PRECONDITION_FAILED if if_match.is_some() => Ok(Got::Changed),
                StatusCode::RANGE_NOT_SATISFIABLE => {
                    Ok(Got::OutOfRange(refusal.into_error(operation)))
                }
                _ => Err(self.absent(operation, refusal, deadline)),
            },
        }
    }

    fn size_of(&self, key: &str, deadline: &Deadline) -> Result<(u64, Option<String>)> {
        let found = self.head("open", key, deadline)?;
        Ok((found.meta.size_bytes, found.meta.etag))
    }
}

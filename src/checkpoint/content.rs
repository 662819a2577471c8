//! The raw bytes of a shard, however its object holds them.

use crate::encode::BlockChecksums;
use crate::error::Result;
use crate::store::{CompressedForm, ReadReport};

use super::base::Base;
use super::shard::ShardMeta;

/// A shard's object, and how it is read.
pub(super) struct Content<'a> {
    base: &'a Base,
    uri: String,
    form: Option<CompressedForm>,
}

impl<'a> Content<'a> {
    /// # Errors
    /// As [`ShardMeta::form`].
    pub fn of(base: &'a Base, shard: &ShardMeta) -> Result<Content<'a>> {
        Ok(Content { base, uri: base.uri(&shard.key), form: shard.form()? })
    }

    pub fn read_into(&self, offset: u64, buffer: &mut [u8]) -> Result<ReadReport> {
        let store = &self.base.store;
        match self.form {
            None => store.read_into(&self.uri, offset, buffer),
            Some(form) => store.decompress_into(&self.uri, form, offset, buffer),
        }
    }

    pub fn read_into_verified(
        &self,
        offset: u64,
        buffer: &mut [u8],
        expected: &BlockChecksums,
    ) -> Result<ReadReport> {
        let (store, uri) = (&self.base.store, &self.uri);
        match self.form {
            None => store.read_into_verified(uri, offset, buffer, expected),
            Some(form) => store.decompress_into_verified(uri, form, offset, buffer, expected),
        }
    }
}

//! What is counted: objects written and read on some medium, part by part.

use std::sync::Arc;

use syncline::{
    AlignedVec, BlockChecksums, Bytes, Config, ConfigBuilder, ObjectStore, ReadReport,
    WriteOptions, WriteReport, open_store,
};
use tempfile::TempDir;

use crate::data::noise;
use crate::service::reaching;

pub const MIB: usize = 1 << 20;

pub const WAYS_IN: [&str; 4] = ["write_chunk", "write_owned", "reserve", "write_borrowed"];
pub const WAYS_OUT: [&str; 2] = ["read_into", "read_into_verified"];

/// Bytes of a part: on local media those from which on writeback is started, on servers the least of S3.
pub fn part_bytes(medium: &str) -> usize {
    if matches!(medium, "s3" | "az") { 5 * MIB } else { MIB }
}

/// A store, and what is written to it and read from it.
pub struct Work {
    pub store: Arc<dyn ObjectStore>,
    base: String,
    part: AlignedVec,
    owned: Bytes,
    target: AlignedVec,
    /// Of the object that `prepare` wrote.
    sums: Option<BlockChecksums>,
    /// Removed with it.
    _directory: Option<TempDir>,
}

impl Work {
    /// On `medium`, with parts of the size of [`part_bytes`].
    pub fn on(medium: &str, endpoint: &str) -> Work {
        let config = Config::builder().part_bytes(part_bytes(medium));
        Work::with(medium, endpoint, config.io_threads(2).queue_depth_parts(2).open_writers_max(2))
    }

    pub fn with(medium: &str, endpoint: &str, config: ConfigBuilder) -> Work {
        let directory = matches!(medium, "file" | "direct")
            .then(|| TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        let base = match (medium, &directory) {
            (_, Some(directory)) => format!("{medium}://{}", directory.path().display()),
            ("s3", _) => "s3://container/base".to_owned(),
            ("az", _) => "az://account/container/base".to_owned(),
            _ => "mem://place/base".to_owned(),
        };
        let store =
            open_store(&base, &reaching(config, medium, endpoint).build().unwrap()).unwrap();
        let part = AlignedVec::copy_of(&noise(store.config().part_bytes(), 1)).unwrap();
        Work {
            owned: Bytes::from(AlignedVec::copy_of(&part).unwrap()),
            part,
            target: AlignedVec::zeroed(0).unwrap(),
            sums: None,
            store,
            base,
            _directory: directory,
        }
    }

    pub fn uri(&self, name: &str) -> String {
        format!("{}/{name}", self.base)
    }

    /// Writes one object of this many parts.
    pub fn write(&self, way: &str, parts: usize) -> WriteReport {
        let size = (parts * self.part.len()) as u64;
        let options = WriteOptions::default().size_hint_bytes(size);
        let mut writer = self.store.get_writer_with(&self.uri("written"), options).unwrap();
        for _ in 0..parts {
            match way {
                "write_chunk" => writer.write_chunk(&self.part).unwrap(),
                "write_owned" => writer.write_owned(self.owned.clone()).unwrap(),
                "write_borrowed" => writer.write_borrowed(&self.part).unwrap(),
                "reserve" => {
                    let room = writer.reserve().unwrap();
                    room[0] = 1;
                    let bytes = room.len();
                    writer.commit(bytes).unwrap();
                }
                _ => panic!("{way}"),
            }
        }
        let meta = writer.finalize().unwrap();
        assert_eq!(meta.size_bytes, size);
        meta.write.unwrap()
    }

    /// Writes the object that is read, and makes the memory for it.
    pub fn prepare(&mut self, parts: usize) {
        let mut writer = self.store.get_writer(&self.uri("read")).unwrap();
        (0..parts).for_each(|_| writer.write_chunk(&self.part).unwrap());
        self.sums = writer.block_checksums();
        writer.finalize().unwrap();
        self.target = AlignedVec::zeroed(parts * self.part.len()).unwrap();
    }

    /// Reads the first parts of the object. What arrives is compared by `read_into_verified`.
    pub fn read(&mut self, way: &str, parts: usize) -> ReadReport {
        let uri = self.uri("read");
        let target = &mut self.target[..parts * self.part.len()];
        match way {
            "read_into" => self.store.read_into(&uri, 0, target).unwrap(),
            "read_into_verified" => {
                let sums = self.sums.as_ref().unwrap();
                self.store.read_into_verified(&uri, 0, target, sums).unwrap()
            }
            _ => panic!("{way}"),
        }
    }

    /// Writes, or reads, so many small objects of one folder in one call.
    pub fn many(&self, way: &str, count: usize) {
        let uris: Vec<String> = (0..count).map(|n| self.uri(&format!("many/{n}"))).collect();
        let data = &self.part[..1000];
        if way == "put_many" {
            let objects: Vec<(&str, &[u8])> = uris.iter().map(|uri| (&**uri, data)).collect();
            let written = self.store.put_many(&objects, WriteOptions::default());
            written.into_iter().for_each(|object| drop(object.unwrap()));
        } else {
            let wanted: Vec<(&str, Option<&str>)> = uris.iter().map(|uri| (&**uri, None)).collect();
            for read in self.store.get_many(&wanted) {
                assert_eq!(read.unwrap(), data);
            }
        }
    }

    /// Writes a small object.
    pub fn put_small(&self, name: &str) {
        self.store.put(&self.uri(name), &self.part[..1000]).unwrap();
    }
}

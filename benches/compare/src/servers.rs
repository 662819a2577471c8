//! Ours by `s3://` and `az://`, against the endpoint.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use syncline::{
    Algorithm, AzureConfig, AzureIntegrity, BlockChecksums, Config, HttpConfig, ObjectStore, S3Config,
    S3Integrity, open_store,
};

use crate::contest::Contestant;
use crate::job::{Job, Work};
use crate::local::{read_object, write_object};

/// Ways: `write_chunk`; `unchecked`; `sha256` and `md5` as proof; otherwise `write_borrowed`. `fresh` reads
/// unverified, into memory that each pass gets anew.
pub fn server(job: Job) -> Contestant {
    let store = open(&job);
    let uris: Vec<String> = (0..job.streams).map(|n| uri(&job, &format!("object-{n}"))).collect();
    let size = job.stream_bytes();
    let mut memory = job.memory();
    let blocks = block_checksums(&memory[..size], store.config().part_bytes());
    Contestant::new(
        || (),
        move || {
            thread::scope(|scope| {
                for (uri, memory) in uris.iter().zip(memory.chunks_mut(size)) {
                    let (store, way, blocks) = (&*store, job.way.as_str(), &blocks);
                    scope.spawn(move || match job.work {
                        Work::Write => write_object(store, uri, memory, way),
                        Work::Read => read_object(store, uri, memory, blocks, way),
                    });
                }
            });
        },
    )
}

/// Known beforehand, as a manifest tells them.
fn block_checksums(data: &[u8], block_bytes: usize) -> BlockChecksums {
    let sums = data.chunks(block_bytes).map(|block| Algorithm::Crc32c.checksum(block).value() as u32);
    BlockChecksums::new(block_bytes as u64, data.len() as u64, sums.collect()).expect("a sum for each block")
}

pub fn uri(job: &Job, name: &str) -> String {
    match job.storage.as_str() {
        "s3" => format!("s3://bucket/{name}"),
        _ => format!("az://account/container/{name}"),
    }
}

pub fn open(job: &Job) -> Arc<dyn ObjectStore> {
    let mut s3 = S3Config::new()
        .endpoint(&format!("http://{}:{}", job.host, job.port))
        .region("us-east-1")
        .credentials("key", "secret", None);
    let mut azure = AzureConfig::new()
        .endpoint(&format!("http://{}:{}/account", job.host, job.port))
        .account_key("c2VjcmV0");
    match job.way.as_str() {
        "sha256" => s3 = s3.integrity(S3Integrity::Sha256),
        "md5" => azure = azure.integrity(AzureIntegrity::Md5),
        "unchecked" => {
            s3 = s3.integrity(S3Integrity::None);
            azure = azure.integrity(AzureIntegrity::None);
        }
        _ => {}
    }
    let mut config = Config::builder()
        .s3(s3)
        .azure(azure)
        .http(HttpConfig::new().response_timeout(Duration::from_secs(30)));
    if job.part_bytes > 0 {
        config = config.part_bytes(job.part_bytes);
    }
    if job.threads > 1 {
        config = config.io_threads(job.threads);
    }
    open_store(&uri(job, "object"), &config.build().expect("settings that can be used")).expect("a store")
}

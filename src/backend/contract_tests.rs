//! The contract of uploads and sources, over the media of this machine.

use super::*;
use crate::config::DirectPolicy;
use crate::encode::Algorithm;
use std::time::Duration;

fn backends() -> [(Arc<dyn Backend>, String, tempfile::TempDir); 3] {
    let directory = || tempfile::tempdir().unwrap();
    let key = |d: &tempfile::TempDir| format!("{}/a/object", &d.path().to_str().unwrap()[1..]);
    let memory: Arc<dyn Backend> = Arc::new(MemoryBackend::new("contract"));
    [memory, open_file(), open_direct(DirectPolicy::Prefer)].map(|backend| {
        let directory = directory();
        let key = key(&directory);
        (backend, key, directory)
    })
}

fn part(index: u64, bytes: &[u8]) -> PartView<'_> {
    let checksum = Some(Algorithm::Crc32c.checksum(bytes));
    PartView {
        index,
        offset: index * 4096,
        bytes,
        more: &[],
        bytes_padded: bytes,
        checksum,
        transport: None,
    }
}

#[test]
fn parts_come_in_any_order_and_more_than_once() {
    let soon = Deadline::after(Duration::from_secs(60));
    for (backend, key, _directory) in backends() {
        let upload = backend.begin(&key, UploadSpec::default(), &soon).unwrap();
        let memory: Vec<_> =
            (1..4).map(|n| crate::buffer::AlignedVec::copy_of(&[n; 4096]).unwrap()).collect();
        let mut receipts = Vec::new();
        for index in [2, 0, 1, 0, 2] {
            let receipt = upload.put_part(&part(index, &memory[index as usize]), &soon).unwrap();
            assert_eq!((receipt.index, receipt.bytes), (index, 4096));
            receipts.push(receipt);
        }
        assert!(backend.head(&key, &soon).is_err(), "visible before the commit");
        let meta = upload.commit(&receipts[..3], 3 * 4096, &soon, &|| ()).unwrap();
        assert_eq!(meta.size_bytes, 3 * 4096);
        upload.abort(&soon).unwrap();
        upload.abort(&soon).unwrap();
        assert_eq!(backend.head(&key, &soon).unwrap().size_bytes, 3 * 4096, "abort after commit");
        let source = backend.open(&key, &soon).unwrap();
        let mut back = crate::buffer::AlignedVec::zeroed(3 * 4096).unwrap();
        let mut done = 0;
        while done < back.len() {
            done += source.read_at(done as u64, &mut back[done..], &soon).unwrap();
        }
        assert_eq!(&back[..], memory.iter().map(|m| m.to_vec()).collect::<Vec<_>>().concat());
    }
}

#[test]
fn an_aborted_upload_never_commits() {
    let soon = Deadline::after(Duration::from_secs(60));
    for (backend, key, _directory) in backends() {
        let upload = backend.begin(&key, UploadSpec::default(), &soon).unwrap();
        let memory = crate::buffer::AlignedVec::zeroed(4096).unwrap();
        let receipt = upload.put_part(&part(0, &memory), &soon).unwrap();
        upload.abort(&soon).unwrap();
        assert!(upload.commit(&[receipt], 4096, &soon, &|| ()).is_err());
        assert!(backend.head(&key, &soon).is_err());
        let parent = key.rsplit_once('/').unwrap().0;
        assert!(backend.orphans(parent, &soon).unwrap().is_empty());
    }
}

#[test]
fn a_source_shows_the_version_it_opened() {
    let soon = Deadline::after(Duration::from_secs(60));
    for (backend, key, _directory) in backends() {
        let put = |byte: u8| {
            let upload = backend.begin(&key, UploadSpec::default(), &soon).unwrap();
            let memory = crate::buffer::AlignedVec::copy_of(&[byte; 4096]).unwrap();
            let receipt = upload.put_part(&part(0, &memory), &soon).unwrap();
            upload.commit(&[receipt], 4096, &soon, &|| ()).unwrap();
        };
        put(1);
        let source = backend.open(&key, &soon).unwrap();
        put(2);
        let mut back = crate::buffer::AlignedVec::zeroed(4096).unwrap();
        assert_eq!(source.read_at(0, &mut back, &soon).unwrap(), 4096);
        assert!(back.iter().all(|byte| *byte == 1));
    }
}

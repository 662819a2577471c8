//! What every backend promises, as functions expanded over all of them.

mod support;

use std::io::Write as _;

use support::{Place, aligned_noise, noise, small};
use syncline::{
    Algorithm, BufferedObjectWriter, Bytes, ErrorKind, IoMode, ObjectStore, WriteOptions,
    open_store,
};

over_every_backend! {
    an_object_reads_back_as_written,
    nothing_is_visible_before_finalize,
    an_object_is_replaced_as_a_whole,
    cancel_and_drop_leave_nothing,
    create_only_has_one_winner,
    create_only_refuses_early_and_keeps_the_object,
    the_empty_object_is_an_object,
    ranges_lie_within_the_object,
    what_is_absent_is_not_found,
    listing_is_ordered_and_by_segments,
    delete_prefix_takes_no_neighbour,
    damage_is_located,
    checksums_are_validated,
    checksums_can_be_other_or_none,
    writers_are_counted,
    a_reservation_is_bounded,
    names_that_escape_are_refused,
    a_writer_of_another_store_is_refused,
    the_report_tells_the_mode_and_the_copies,
    a_writer_is_an_io_write,
    a_collecting_writer_puts_the_whole,
    many_writers_share_the_engine,
}

fn an_object_reads_back_as_written(scheme: &str) {
    let place = Place::new(scheme, small());
    let uri = place.uri("a/b/object");
    let data = noise(5 * place.part() + 1234, 1);
    let meta = place.store.put(&uri, &data).unwrap();
    assert_eq!(meta.size_bytes, data.len() as u64);
    assert_eq!(meta.checksum, Some(Algorithm::Crc32c.checksum(&data).to_string()));
    assert_eq!(place.store.get(&uri).unwrap(), data);
    let stat = place.store.stat(&uri).unwrap();
    assert_eq!((stat.uri.as_str(), stat.size_bytes), (uri.as_str(), data.len() as u64));
    assert!(stat.modified.is_some());
    place.assert_holds(&["a/b/object"]);
}

fn nothing_is_visible_before_finalize(scheme: &str) {
    let place = Place::new(scheme, small());
    let uri = place.uri("object");
    let mut writer = place.store.get_writer(&uri).unwrap();
    writer.write_chunk(&noise(3 * place.part(), 2)).unwrap();
    assert!(!place.store.exists(&uri).unwrap());
    assert!(place.names().is_empty());
    writer.finalize().unwrap();
    place.assert_holds(&["object"]);
}

fn an_object_is_replaced_as_a_whole(scheme: &str) {
    let place = Place::new(scheme, small());
    let uri = place.uri("object");
    let (old, new) = (noise(2 * place.part() + 5, 3), noise(place.part() / 2, 4));
    place.store.put(&uri, &old).unwrap();
    let mut writer = place.store.get_writer(&uri).unwrap();
    writer.write_chunk(&new).unwrap();
    assert_eq!(place.store.get(&uri).unwrap(), old);
    writer.finalize().unwrap();
    assert_eq!(place.store.get(&uri).unwrap(), new);
    place.assert_holds(&["object"]);
}

fn cancel_and_drop_leave_nothing(scheme: &str) {
    let place = Place::new(scheme, small());
    for cancel in [true, false] {
        let mut writer = place.store.get_writer(&place.uri("object")).unwrap();
        writer.write_chunk(&noise(3 * place.part() + 7, 5)).unwrap();
        if cancel {
            writer.cancel().unwrap();
        } else {
            drop(writer);
        }
        if scheme == "az" {
            place.assert_holds_blocks_alone();
        } else {
            place.assert_holds(&[]);
        }
    }
}

fn create_only_has_one_winner(scheme: &str) {
    let place = Place::new(scheme, small());
    let uri = place.uri("object");
    // SeaweedFS 4.48 looks at the condition of a CompleteMultipartUpload without keeping others out until
    // it is done, so that two of eight may win: one part there, which is one PutObject.
    let bytes = if scheme == "s3" { place.part() - 11 } else { place.part() + 11 };
    let data: Vec<Vec<u8>> = (0..8).map(|n| noise(bytes, 10 + n)).collect();
    let mut writers = Vec::new();
    for data in &data {
        let options = WriteOptions::default().create_only();
        let mut writer = place.store.get_writer_with(&uri, options).unwrap();
        writer.write_chunk(data).unwrap();
        writers.push(writer);
    }
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = writers.into_iter().map(|w| scope.spawn(|| w.finalize())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let winners: Vec<usize> = (0..8).filter(|n| outcomes[*n].is_ok()).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    for outcome in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!(outcome.kind(), ErrorKind::AlreadyExists, "{outcome}");
    }
    assert_eq!(place.store.get(&uri).unwrap(), data[winners[0]]);
    place.assert_holds(&["object"]);
}

/// A small object may be refused only when it is put; a large one is not sent in vain.
fn create_only_refuses_early_and_keeps_the_object(scheme: &str) {
    let place = Place::new(scheme, small());
    let uri = place.uri("object");
    place.store.put(&uri, b"first").unwrap();
    let options = WriteOptions::default().create_only();
    let refused = |bytes: usize| {
        let mut writer = place.store.get_writer_with(&uri, options.clone())?;
        writer.write_chunk(&noise(bytes, 6))?;
        if bytes > 3 * place.part() {
            // Other parts may still be queued; the first one's refusal is known before the commit.
            while writer.write_chunk(&[0; 512]).is_ok() && writer.bytes_written() < 1 << 30 {}
            assert!(writer.bytes_written() < 1 << 30, "never refused");
        }
        writer.finalize()
    };
    for bytes in [0, 6, 3 * place.part() + 7] {
        let error = refused(bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.uri().unwrap().ends_with("object"), "{error}");
        assert_eq!(place.store.get(&uri).unwrap(), "first");
    }
    place.assert_holds(&["object"]);
}

fn the_empty_object_is_an_object(scheme: &str) {
    let place = Place::new(scheme, small());
    let uri = place.uri("empty");
    let meta = place.store.get_writer(&uri).unwrap().finalize().unwrap();
    assert_eq!((meta.size_bytes, meta.checksum.as_deref()), (0, Some("crc32c:00000000")));
    assert!(place.store.exists(&uri).unwrap());
    assert!(place.store.get(&uri).unwrap().is_empty());
    assert!(place.store.get_with_validation(&uri, "crc32c:00000000").unwrap().is_empty());
    let blocks = place.store.block_checksums(&uri, 4096).unwrap();
    assert!(blocks.crc32c().is_empty());
    place.store.read_into_verified(&uri, 0, &mut [], &blocks).unwrap();
}

fn ranges_lie_within_the_object(scheme: &str) {
    let place = Place::new(scheme, small());
    let uri = place.uri("object");
    let data = noise(2 * place.part() + 100, 6);
    place.store.put(&uri, &data).unwrap();
    let size = data.len() as u64;
    for (offset, length) in [
        (0, 0),
        (0, 1),
        (1, 511),
        (511, 513),
        (4096, 4096),
        (100, size - 100),
        (size - 1, 1),
        (size, 0),
    ] {
        let found = place.store.get_range(&uri, offset, Some(length)).unwrap();
        assert_eq!(found, data[offset as usize..(offset + length) as usize], "{offset}+{length}");
    }
    assert_eq!(place.store.get_range(&uri, 77, None).unwrap(), data[77..]);
    for (offset, length) in [(0, size + 1), (size, 1), (size + 1, 0), (u64::MAX, 2), (1, u64::MAX)]
    {
        let error = place.store.get_range(&uri, offset, Some(length)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    assert!(place.store.get_range(&uri, size + 1, None).is_err());
}

fn what_is_absent_is_not_found(scheme: &str) {
    let place = Place::new(scheme, small());
    let uri = place.uri("absent");
    let store = &place.store;
    let errors = [
        store.get(&uri).unwrap_err(),
        store.stat(&uri).unwrap_err(),
        store.delete(&uri).unwrap_err(),
        store.read_into(&uri, 0, &mut []).unwrap_err(),
        store.block_checksums(&uri, 1).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains("absent"), "{error}");
    }
    assert!(!store.exists(&uri).unwrap());
    assert_eq!(store.list(&uri).unwrap().count(), 0);
    assert_eq!(store.delete_prefix(&uri).unwrap(), 0);
}

fn listing_is_ordered_and_by_segments(scheme: &str) {
    let place = Place::new(scheme, small());
    let names = ["a", "b-c", "b/c", "b/d/e", "b0", "c/x"];
    for name in names.iter().rev() {
        place.store.put(&place.uri(name), name.as_bytes()).unwrap();
    }
    assert_eq!(place.names(), names);
    let below: Vec<String> =
        place.store.list(&place.uri("b")).unwrap().map(|meta| meta.unwrap().uri).collect();
    assert_eq!(below, [place.uri("b/c"), place.uri("b/d/e")]);
    let exact: Vec<u64> =
        place.store.list(&place.uri("b-c")).unwrap().map(|meta| meta.unwrap().size_bytes).collect();
    assert_eq!(exact, [3]);
}

fn delete_prefix_takes_no_neighbour(scheme: &str) {
    let place = Place::new(scheme, small());
    for name in ["b-c", "b/c", "b/d/e", "b0"] {
        place.store.put(&place.uri(name), b"x").unwrap();
    }
    assert_eq!(place.store.delete_prefix(&place.uri("b")).unwrap(), 2);
    place.assert_holds(&["b-c", "b0"]);
    if let Some(directory) = &place.directory {
        assert!(!directory.path().join("base/b").exists(), "the emptied directory is gone");
    }
    // What was removed can be written again.
    place.store.put(&place.uri("b/c"), b"y").unwrap();
    place.store.delete(&place.uri("b0")).unwrap();
    place.assert_holds(&["b-c", "b/c"]);
}

fn damage_is_located(scheme: &str) {
    let place = Place::new(scheme, small());
    let uri = place.uri("object");
    let mut data = noise(4 * place.part() + 99, 7);
    let mut writer = place.store.get_writer(&uri).unwrap();
    writer.write_chunk(&data).unwrap();
    let expected = writer.block_checksums().unwrap();
    writer.finalize().unwrap();
    assert_eq!(place.store.block_checksums(&uri, place.part() as u64).unwrap(), expected);
    let mut memory = aligned_noise(data.len(), 8);
    place.store.read_into_verified(&uri, 0, &mut memory, &expected).unwrap();
    assert_eq!(&memory[..], &data[..]);
    let tail = 3 * place.part();
    let found = place.store.read_into_verified(&uri, tail as u64, &mut memory[tail..], &expected);
    assert_eq!(found.unwrap().bytes, (data.len() - tail) as u64);
    assert!(place.store.read_into_verified(&uri, 1, &mut memory[1..], &expected).is_err());

    data[2 * place.part() + 5] ^= 1;
    place.store.put(&uri, &data).unwrap();
    let error = place.store.read_into_verified(&uri, 0, &mut memory, &expected).unwrap_err();
    assert_eq!((error.kind(), error.part()), (ErrorKind::ChecksumMismatch, Some(2)));
    assert_eq!(error.uri(), Some(&*uri));
    let range = format!("{}..{}", 2 * place.part(), 3 * place.part());
    assert!(error.to_string().contains(&range), "{error}");
    // Blocks that are larger than parts, and that are no multiple of anything.
    for block_bytes in [3 * place.part() as u64, 10_007] {
        let wide = place.store.block_checksums(&uri, block_bytes).unwrap();
        assert_eq!(wide.combined(), Algorithm::Crc32c.checksum(&data));
        place.store.read_into_verified(&uri, 0, &mut memory, &wide).unwrap();
    }
    place.store.put(&uri, &data[..place.part()]).unwrap();
    let error = place.store.read_into_verified(&uri, 0, &mut memory, &expected).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incomplete);
}

fn checksums_are_validated(scheme: &str) {
    let place = Place::new(scheme, small());
    let uri = place.uri("object");
    let data = noise(3 * place.part() + 1, 9);
    place.store.put(&uri, &data).unwrap();
    for algorithm in [Algorithm::Crc32c, Algorithm::Crc32, Algorithm::Crc64Nvme] {
        let good = algorithm.checksum(&data).to_string();
        assert_eq!(place.store.get_with_validation(&uri, &good).unwrap(), data);
        let range = algorithm.checksum(&data[100..place.part() + 300]).to_string();
        let end = 101 + place.part() + 200;
        let length = Some(place.part() as u64 + 200);
        let found = place.store.get_range_with_validation(&uri, 100, length, &range).unwrap();
        assert_eq!(found, data[100..place.part() + 300]);
        let error = place.store.get_range_with_validation(&uri, 101, length, &range).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ChecksumMismatch);
        let found = algorithm.checksum(&data[101..end]).to_string();
        for needle in [&uri, &format!("bytes 101..{end} are damaged"), &range, &found] {
            assert!(error.to_string().contains(needle), "{needle} is not in: {error}");
        }
        let error = place.store.get_with_validation(&uri, &range).unwrap_err();
        for needle in [&uri, &format!("bytes 0..{} are damaged", data.len()), &range, &good] {
            assert!(error.to_string().contains(needle), "{needle} is not in: {error}");
        }
    }
    let error = place.store.get_with_validation(&uri, "md5:00").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

fn checksums_can_be_other_or_none(scheme: &str) {
    let place = Place::new(scheme, small());
    let data = noise(2 * place.part() + 77, 10);
    for algorithm in [Some(Algorithm::Crc32), Some(Algorithm::Crc64Nvme), None] {
        let options = WriteOptions::default().checksum(algorithm);
        let mut writer = place.store.get_writer_with(&place.uri("object"), options).unwrap();
        writer.write_chunk(&data).unwrap();
        let expected = algorithm.map(|a| a.checksum(&data).to_string());
        assert_eq!(writer.checksum(), expected);
        assert_eq!(writer.block_checksums(), None);
        assert_eq!(writer.finalize().unwrap().checksum, expected);
        assert_eq!(place.store.get(&place.uri("object")).unwrap(), data);
    }
}

fn writers_are_counted(scheme: &str) {
    let place = Place::new(scheme, small());
    let open = |n: usize| place.store.get_writer(&place.uri(&n.to_string()));
    let mut writers: Vec<_> = (0..9).map(|n| open(n).unwrap()).collect();
    let error = open(9).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    drop(writers.pop());
    writers.push(open(10).unwrap());
}

fn a_reservation_is_bounded(scheme: &str) {
    let place = Place::new(scheme, small());
    let uri = place.uri("object");
    let mut writer = place.store.get_writer(&uri).unwrap();
    writer.write_chunk(b"head").unwrap();
    let reserved = writer.reserve().unwrap();
    assert_eq!(reserved.len(), place.part() - 4);
    reserved[..3].copy_from_slice(b"abc");
    assert_eq!(writer.commit(place.part()).unwrap_err().kind(), ErrorKind::InvalidInput);
    writer.commit(3).unwrap();
    assert_eq!(writer.commit(1).unwrap_err().kind(), ErrorKind::InvalidInput, "committed already");
    writer.commit(0).unwrap();
    writer.reserve().unwrap()[0] = b'!';
    writer.write_chunk(b"tail").unwrap();
    assert_eq!(writer.bytes_written(), 11);
    writer.finalize().unwrap();
    assert_eq!(place.store.get(&uri).unwrap(), "headabctail");
}

fn names_that_escape_are_refused(scheme: &str) {
    let place = Place::new(scheme, small());
    for name in ["../up", "a/../../b", "./x", "nul\0", "bell\u{7}", "dir/", ""] {
        let error = place.store.put(&place.uri(name), b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}: {error}");
    }
    let error = place.store.put(&place.uri(".x.0000000000000000.syncline-tmp"), b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    place.assert_holds(&[]);
}

fn a_writer_of_another_store_is_refused(scheme: &str) {
    let place = Place::new(scheme, small());
    let error = place.store.put("mem://elsewhere/object", b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(place.store.list("nowhere://x").is_err());
}

fn the_report_tells_the_mode_and_the_copies(scheme: &str) {
    let place = Place::new(scheme, small());
    let uri = place.uri("object");
    let data = aligned_noise(4 * place.part(), 11);
    let mut writer = place.store.get_writer(&uri).unwrap();
    writer.write_borrowed(&data).unwrap();
    let report = writer.finalize().unwrap().write.unwrap();
    let mode = match scheme {
        "mem" => IoMode::Memory,
        "s3" | "az" => IoMode::Network,
        "direct" => IoMode::DirectProven,
        _ => IoMode::Buffered,
    };
    assert_eq!((report.mode, report.bytes, report.copied_bytes), (mode, data.len() as u64, 0));
    assert_eq!(report.parts, 4);

    let mut writer = place.store.get_writer(&uri).unwrap();
    writer.write_owned(Bytes::copy_from_slice(&data[1..])).unwrap();
    writer.write_chunk(&data[..10]).unwrap();
    let report = writer.report();
    assert!(report.copied_bytes >= 10, "{report:?}");
    if mode != IoMode::DirectProven {
        assert_eq!(report.copied_bytes, 10);
    }
    drop(writer);

    let mut memory = aligned_noise(data.len(), 12);
    let read = place.store.read_into(&uri, 0, &mut memory).unwrap();
    assert_eq!((read.mode, read.bytes, read.copied_bytes), (mode, data.len() as u64, 0));
    assert_eq!(&memory[..], &data[..]);
}

fn a_writer_is_an_io_write(scheme: &str) {
    let place = Place::new(scheme, small());
    let uri = place.uri("object");
    let data = noise(place.part() * 2 + 3, 13);
    let mut writer = place.store.get_writer(&uri).unwrap();
    std::io::copy(&mut &data[..], &mut writer).unwrap();
    writer.flush().unwrap();
    writer.finalize().unwrap();
    assert_eq!(place.store.get(&uri).unwrap(), data);
}

fn a_collecting_writer_puts_the_whole(scheme: &str) {
    let place = Place::new(scheme, small());
    let uri = place.uri("object");
    let data = noise(place.part() * 3 + 3, 14);
    let options = WriteOptions::default();
    let mut writer = BufferedObjectWriter::new(place.store.clone(), &uri, options.clone()).unwrap();
    writer.write_chunk(&data).unwrap();
    let checksum = writer.checksum();
    assert!(!place.store.exists(&uri).unwrap());
    assert_eq!(writer.finalize().unwrap().checksum, checksum);
    assert_eq!(place.store.get(&uri).unwrap(), data);
    BufferedObjectWriter::new(place.store.clone(), &uri, options).unwrap().cancel().unwrap();
    place.assert_holds(&["object"]);
}

fn many_writers_share_the_engine(scheme: &str) {
    let place = Place::new(scheme, small());
    std::thread::scope(|scope| {
        for n in 0..9 {
            let place = &place;
            scope.spawn(move || {
                for round in 0..3 {
                    let uri = place.uri(&format!("{n}/{round}"));
                    let data = noise(3 * place.part() + n * 1000, (n * 10 + round) as u64);
                    let mut writer = place.store.get_writer(&uri).unwrap();
                    for piece in data.chunks(10_000) {
                        writer.write_chunk(piece).unwrap();
                    }
                    writer.finalize().unwrap();
                    assert_eq!(place.store.get(&uri).unwrap(), data);
                }
            });
        }
    });
    assert_eq!(place.names().len(), 27);
}

#[test]
fn two_engines_with_different_settings_live_side_by_side() {
    let place = Place::new("file", small());
    let wide = syncline::Config::builder().part_bytes(1 << 20).io_threads(1).build().unwrap();
    let other: std::sync::Arc<dyn ObjectStore> = open_store(&place.base, &wide).unwrap();
    assert_ne!(place.store.config().memory_bytes_max(), other.config().memory_bytes_max());
    let data = noise(3 << 20, 15);
    place.store.put(&place.uri("a"), &data).unwrap();
    other.put(&place.uri("b"), &data).unwrap();
    assert_eq!(place.store.get(&place.uri("b")).unwrap(), other.get(&place.uri("a")).unwrap());
}

#[test]
fn direct_io_is_required_or_preferred() {
    let require = || small().direct(syncline::DirectPolicy::Require);
    let place = Place::new("direct_tmpfs", require());
    let error = place.store.put(&place.uri("object"), b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "tmpfs accepts O_DIRECT and buffers: {error}");
    assert!(error.remedy().is_some());
    place.assert_holds(&[]);
    let disk = Place::new("direct", require());
    let meta = disk.store.put(&disk.uri("object"), b"x").unwrap();
    assert_eq!(meta.write.unwrap().mode, IoMode::DirectProven);
}

//! The same of what is compressed.

use super::*;
use crate::encode::sample::{compressed, mixed};
use crate::encode::{Compression, Filter};
use crate::limits::FRAME_BYTES_MIN;
use crate::store::{CompressedForm, ObjectWriter, ScanOptions, WriteOptions};
use crate::sync::Mutex;

fn zstd() -> WriteOptions {
    WriteOptions::default().compression(Compression::zstd(1).unwrap())
}

/// A frame whose stored form is about three parts.
fn frame() -> AlignedVec {
    let mut frame = AlignedVec::zeroed(FRAME_BYTES_MIN).unwrap();
    let mut state = 1_u32;
    for byte in &mut frame[..5 * PART / 2] {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    frame
}

/// Writes four frames and a half in every way there is.
fn steps(writer: &mut dyn ObjectWriter) -> Result<()> {
    let data = frame();
    writer.write_chunk(&data)?;
    writer.write_borrowed(&data)?;
    writer.write_owned(bytes::Bytes::copy_from_slice(&data))?;
    writer.reserve()?[..PART].fill(7);
    writer.commit(PART)?;
    // The head of it fills the frame up, its body goes as it is.
    writer.write_borrowed(&[&data[..], &data[..]].concat())
}

fn save(store: &Store, uri: &str) -> Result<()> {
    let mut writer = store.get_writer_with(uri, zstd())?;
    if let Err(error) = steps(&mut *writer) {
        for later in [writer.write_chunk(b"x"), writer.commit(0), writer.write_borrowed(b"x")] {
            assert_eq!(later.unwrap_err().to_string(), error.to_string());
        }
        assert_eq!(writer.reserve().err().unwrap().kind(), error.kind());
        assert_eq!(writer.finalize().unwrap_err().to_string(), error.to_string());
        return Err(error);
    }
    let meta = writer.finalize()?;
    let report = meta.write.unwrap();
    assert_eq!((report.frames, report.unshrunk_frames), (6, 0), "{report:?}");
    assert_eq!(report.stored_bytes, meta.size_bytes);
    Ok(())
}

fn assert_all_back(store: &Store, base: &str) {
    assert_clean(store, base);
    assert!(store.engine_for_test().compute().is_at_rest(), "frame buffers are missing");
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C")]
fn every_operation_of_a_compressed_save_may_fail_or_panic() {
    over_media(|base, inner| {
        let uri = format!("{base}/object");
        let counting = FaultPlan::healthy();
        let store = faulty(base, Arc::clone(&inner), small(), &counting);
        save(&store, &uri).unwrap();
        let operations = counting.seen();
        assert!(operations > 10, "parts of all frames");
        let stored = store.stat(&uri).unwrap();
        store.delete(&uri).unwrap();
        let size = stored.size_bytes as usize;
        each_fault(operations, |plan| {
            let store = faulty(base, Arc::clone(&inner), small(), plan);
            assert_told(&save(&store, &uri).unwrap_err(), plan);
            assert_clean_or_visible(&store, base, plan, size);
            assert_all_back(&store, base);
        });
    });
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C")]
fn an_encoder_that_fails_or_panics_fails_the_write() {
    over_media(|base, inner| {
        let uri = format!("{base}/object");
        for panics in [false, true] {
            for frame in 0..6 {
                let healthy = FaultPlan::healthy();
                let store = faulty(base, Arc::clone(&inner), small(), &healthy);
                store.engine_for_test().compute().break_encoder(frame, panics);
                let error = save(&store, &uri).unwrap_err();
                let kind = if panics { ErrorKind::Panicked } else { ErrorKind::Io };
                assert_eq!(error.kind(), kind, "{error}");
                assert!(error.uri().is_some_and(|name| name.ends_with("object")), "{error}");
                assert_all_back(&store, base);
                // The threads live on.
                save(&store, &uri).unwrap();
                store.delete(&uri).unwrap();
            }
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C")]
fn a_stalled_medium_fails_a_compressed_write_in_time() {
    over_media(|base, inner| {
        let plan = FaultPlan::new(Fault::Stall, 1);
        let store = faulty(base, inner, small().timeout(TIMEOUT), &plan);
        let mut writer = store.get_writer_with(&format!("{base}/object"), zstd()).unwrap();
        let error = (0..40).find_map(|_| steps(&mut *writer).err()).unwrap();
        assert_stalled_in(&error, "write part", 2);
        plan.release();
        drop(writer);
        assert_all_back(&store, base);
    });
}

/// One thread fills as many writers as may be open, in turn: none waits for what another holds.
#[test]
#[cfg_attr(miri, ignore = "zstd is C")]
fn writers_filled_in_turn_wait_for_nobody() {
    let healthy = FaultPlan::healthy();
    let inner = Arc::new(MemoryBackend::new("faults"));
    let config = small().compression_threads(1);
    let store = faulty("mem://faults/base", inner, config, &healthy);
    let name = |index| format!("mem://faults/base/object-{index}");
    let open = |index| store.get_writer_with(&name(index), zstd()).unwrap();
    let mut writers: Vec<_> = (0..3).map(open).collect();
    for _ in 0..4 {
        for writer in &mut writers {
            writer.write_chunk(&frame()).unwrap();
            writer.write_chunk(&frame()[..PART]).unwrap();
        }
    }
    let sizes = writers.into_iter().map(|writer| writer.finalize().unwrap().size_bytes);
    let sizes: Vec<u64> = sizes.collect();
    assert_eq!(sizes, [sizes[0]; 3], "equal data gives equal objects");
    assert!(store.engine_for_test().compute().is_at_rest());
}

/// An object of twelve frames, and its raw bytes.
fn put_compressed(base: &str, inner: &Arc<dyn Backend>, uri: &str) -> (CompressedForm, Vec<u8>) {
    let data = mixed(12 * PART - 100, 11);
    let bytes = compressed(&data, PART, 1, Filter::Shuffle4).bytes;
    let healthy = FaultPlan::healthy();
    faulty(base, Arc::clone(inner), small(), &healthy).put(uri, &bytes).unwrap();
    (CompressedForm::new(data.len() as u64, Filter::Shuffle4), data)
}

fn assert_frame_buffers_are_back(store: &Store) {
    let engine = store.engine_for_test();
    assert_eq!(engine.compute().reading_pool(0).taken(), 0, "frame buffers are missing");
    assert_eq!(engine.pool().taken(), 0, "buffers are missing");
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C")]
fn every_operation_of_a_compressed_read_may_fail_or_panic() {
    over_media(|base, inner| {
        let uri = format!("{base}/object");
        let (form, data) = put_compressed(base, &inner, &uri);
        let memory = Mutex::new(vec![0; data.len()]);
        let decompress =
            |store: &Store| store.decompress_into(&uri, form, 0, &mut lock(&memory)).map(drop);
        let call = |scans: bool, store: &Store| match scans {
            false => decompress(store),
            true => {
                let options = ScanOptions::new(PART as u64);
                store.scan_compressed(&uri, form, options, &mut |_| {}).map(drop)
            }
        };
        for scans in [false, true] {
            let counting = FaultPlan::healthy();
            call(scans, &faulty(base, Arc::clone(&inner), small(), &counting)).unwrap();
            let operations = counting.seen();
            // In memory a frame takes two where it lies over the end of a part.
            assert!(operations >= 14, "open, the table, twelve frames, and not {operations}");
            each_fault(operations, |plan| {
                let store = faulty(base, Arc::clone(&inner), small(), plan);
                match call(scans, &store) {
                    Ok(()) => assert!(plan.expected().is_none(), "{plan:?}"),
                    Err(error) => assert_told(&error, plan),
                }
                assert_frame_buffers_are_back(&store);
                lock(&memory).fill(0);
                decompress(&store).unwrap();
                assert!(*lock(&memory) == data);
            });
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "zstd is C")]
fn a_stalled_compressed_read_returns_memory_only_when_nobody_writes_to_it() {
    over_media(|base, inner| {
        let uri = format!("{base}/object");
        let (form, data) = put_compressed(base, &inner, &uri);
        for (at, io_threads) in [(1, 2), (3, 2), (7, 8)] {
            let plan = FaultPlan::new(Fault::Stall, at);
            let config = small().timeout(TIMEOUT).io_threads(io_threads).compression_threads(1);
            let store = faulty(base, Arc::clone(&inner), config, &plan);
            let mut memory = vec![0; data.len()];
            let error = store.decompress_into(&uri, form, 0, &mut memory).unwrap_err();
            memory.fill(POISON);
            // The first read is of the table, which is no part.
            match at {
                1 => assert_stalled(&error),
                _ => assert_stalled_in(&error, "read frame", 12),
            }
            plan.release();
            // What was under way ends before the engine does; what was queued is skipped.
            drop(store);
            assert!(memory.iter().all(|byte| *byte == POISON), "a thread wrote to returned memory");
        }
    });
}

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| syncline::fuzzing::seek_table(data));

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| syncline::fuzzing::azure_credentials(data));

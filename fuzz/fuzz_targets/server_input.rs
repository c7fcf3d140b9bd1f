#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| samehost::fuzzing::server_input(data));

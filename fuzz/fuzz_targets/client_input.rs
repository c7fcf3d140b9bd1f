#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| samehost::fuzzing::client_input(data));

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| recharged::fuzzing::mf178_callback(bytes));

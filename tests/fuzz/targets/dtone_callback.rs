#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| recharged::fuzzing::dtone_callback(bytes));

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vykar_fuzz::key_text(data));

#![no_main]

#[path = "../src/gossip.rs"]
#[allow(dead_code)]
mod gossip;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gossip::stream(bytes));

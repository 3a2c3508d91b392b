//! Runs a check on each input of a fuzzer's corpus, cut at many places and changed at random.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Mutations of each seed, and at how many places it is cut, where a check costs little.
pub(crate) const CHEAP: usize = 400;
/// The same where a check asks thousands of questions.
pub(crate) const DEAR: usize = 40;

/// Where the inputs of a target are.
pub(crate) fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target)
}

/// Runs all inputs of a target, and some that are made of them.
pub(crate) fn replay(target: &str, check: fn(&[u8])) {
    replay_some(target, check, CHEAP);
}

/// The same, with so many made of each.
pub(crate) fn replay_some(target: &str, check: fn(&[u8]), mutations: usize) {
    let listed = fs::read_dir(corpus(target)).unwrap();
    let seeds: BTreeMap<PathBuf, Vec<u8>> = listed
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    assert!(seeds.len() >= 3, "{target} has hardly any seeds");
    let held = |what: String, bytes: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(bytes))) {
            eprintln!("{what}: put these bytes into the corpus: {bytes:02x?}");
            std::panic::resume_unwind(panic);
        }
    };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (path, seed) in &seeds {
        held(path.display().to_string(), seed);
        for cut in (0..seed.len()).step_by((seed.len() / mutations).max(1)) {
            held(format!("{} cut at {cut}", path.display()), &seed[..cut]);
        }
        for number in 0..mutations {
            let other = seeds.values().nth(random.below(seeds.len())).unwrap();
            held(format!("{} mutation {number}", path.display()), &random.mutate(seed, other));
        }
    }
}

/// xorshift64*: the same mutations on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    /// A few changes of the kinds a fuzzer makes.
    fn mutate(&mut self, seed: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                2 => bytes.truncate(at),
                3 if !bytes.is_empty() => drop(bytes.remove(at)),
                4 => bytes.insert(at, self.next().to_le_bytes()[0]),
                _ => {
                    let from = self.below(other.len());
                    let piece = other[from..].iter().take(self.below(24)).copied().collect::<Vec<_>>();
                    bytes.splice(at..at, piece);
                }
            }
        }
        bytes
    }
}

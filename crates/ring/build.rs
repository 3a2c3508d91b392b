//! Computes the table with which Go seeds its random numbers, so that no table stands in the tree.
//!
//! Go's table is the state of its own generator, a lagged Fibonacci one of 607 words, started from a plain linear
//! congruential sequence and stepped 7.8 · 10¹² times. A step is linear, so the steps are taken at once: with the
//! remainder of tᴺ by the recurrence's characteristic polynomial. About 43 products of 607 coefficients.

use std::path::Path;

/// Words of the generator's state.
const LEN: usize = 607;
/// How far back the other summand of a step lies.
const LAG: usize = 273;
/// How many steps led to the table.
const STEPS: u64 = 7_800_000_000_000;
/// Where in the state the first step writes; each one writes one place lower.
const FEED: usize = 333;

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    let table = state_after(&initial_state(), STEPS);
    let out = std::env::var_os("OUT_DIR").ok_or_else(|| std::io::Error::other("cargo sets OUT_DIR"))?;
    std::fs::write(Path::new(&out).join("go_rand_table.rs"), format!("{table:?}"))
}

/// The words before the first step, by their place in the state.
fn initial_state() -> Vec<u64> {
    let mut x = 1;
    let mut next = || {
        x = x * 48_271 % 0x7FFF_FFFF;
        x
    };
    for _ in 0..20 {
        next();
    }
    (0..LEN).map(|_| (next() << 20) ^ (next() << 10) ^ next()).collect()
}

/// The state of which `steps` steps make another.
///
/// As a sequence the words are y(n) = y(n - 607) + y(n - 273), where step n writes y(n) to place FEED - n, and the words
/// before the first step are y(-607) to y(-1).
fn state_after(state: &[u64], steps: u64) -> Vec<u64> {
    let place = |n: i64| (FEED as i64 - n).rem_euclid(LEN as i64) as usize;
    let first = -(LEN as i64);
    let mut sequence: Vec<u64> = (first..0).map(|n| state[place(n)]).collect();
    for n in LEN..2 * LEN {
        sequence.push(sequence[n - LEN].wrapping_add(sequence[n - LAG]));
    }
    let jump = power_of_t(steps);
    let mut after = vec![0; LEN];
    for i in 0..LEN {
        let terms = jump.iter().zip(&sequence[i..]);
        let word = terms.fold(0u64, |sum, (c, y)| sum.wrapping_add(c.wrapping_mul(*y)));
        after[place(steps as i64 + first + i as i64)] = word;
    }
    after
}

/// Coefficients of t to the power `exponent` modulo t⁶⁰⁷ - t³³⁴ - 1, the lowest first.
fn power_of_t(exponent: u64) -> Vec<u64> {
    let mut power = vec![0u64; LEN];
    power[0] = 1;
    for bit in (0..64 - exponent.leading_zeros()).rev() {
        let odd = exponent >> bit & 1;
        let mut square = vec![0u64; 2 * LEN];
        for (i, &a) in power.iter().enumerate() {
            // Written one place higher where t has to be multiplied in.
            let row = square[i + odd as usize..].iter_mut();
            row.zip(&power).for_each(|(sum, b)| *sum = sum.wrapping_add(a.wrapping_mul(*b)));
        }
        for high in (LEN..2 * LEN).rev() {
            let coefficient = square[high];
            for low in [high - LAG, high - LEN] {
                square[low] = square[low].wrapping_add(coefficient);
            }
        }
        square.truncate(LEN);
        power = square;
    }
    power
}

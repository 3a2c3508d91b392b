//! The hash that keeps clusters with different labels apart.

/// Any would do, if only all have the same.
const KEY: [u8; 16] = *b"ringkit label v1";

/// What stands for a cluster's label in every datagram.
///
/// Members of another cluster are to be told apart, not kept out: that is what sealing is for.
pub fn label_hash(label: &str) -> u64 {
    sip_hash_2_4(KEY, label.as_bytes())
}

/// # Source
///
/// Aumasson, Bernstein: `SipHash`, a fast short-input PRF (2012), with two rounds per word and four at the end.
fn sip_hash_2_4(key: [u8; 16], bytes: &[u8]) -> u64 {
    let key = u128::from_le_bytes(key);
    let (low, high) = (key as u64, (key >> 64) as u64);
    let mut state = [
        low ^ 0x736f_6d65_7073_6575,
        high ^ 0x646f_7261_6e64_6f6d,
        low ^ 0x6c79_6765_6e65_7261,
        high ^ 0x7465_6462_7974_6573,
    ];
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        absorb(&mut state, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    // The length modulo 256, as the function is defined.
    last[7] = bytes.len() as u8;
    absorb(&mut state, u64::from_le_bytes(last));
    state[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut state);
    }
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

fn absorb(state: &mut [u64; 4], word: u64) {
    state[3] ^= word;
    round(state);
    round(state);
    state[0] ^= word;
}

fn round([v0, v1, v2, v3]: &mut [u64; 4]) {
    *v0 = v0.wrapping_add(*v1);
    *v1 = v1.rotate_left(13) ^ *v0;
    *v0 = v0.rotate_left(32);
    *v2 = v2.wrapping_add(*v3);
    *v3 = v3.rotate_left(16) ^ *v2;
    *v0 = v0.wrapping_add(*v3);
    *v3 = v3.rotate_left(21) ^ *v0;
    *v2 = v2.wrapping_add(*v1);
    *v1 = v1.rotate_left(17) ^ *v2;
    *v2 = v2.rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_reference() {
        let numbers: [u8; 16] = std::array::from_fn(|number| number as u8);
        // The example of the paper, and two of the table published with the reference implementation.
        for (len, hash) in
            [(15, 0xa129_ca61_49be_45e5), (0, 0x726f_db47_dd0e_0e31), (8, 0x93f5_f579_9a93_2462)]
        {
            assert_eq!(sip_hash_2_4(numbers, &numbers[..len]), hash, "{len}");
        }
    }

    #[test]
    fn labels_are_told_apart() {
        assert_ne!(label_hash(""), label_hash("a"));
        assert_ne!(label_hash("production"), label_hash("staging"));
    }
}

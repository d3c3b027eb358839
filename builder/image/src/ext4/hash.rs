//! The hash of names in indexed folders: half of MD4 over signed characters.
//!
//! Spec: directory.rst, "Hash Tree Directories"; `fs/ext4/hash.c` is its only full definition.

use super::format::EXT4_HTREE_EOF_32BIT;

/// Bytes of a name that one round of the hash takes in.
const CHUNK: usize = 32;
/// Where the register starts without a seed.
const DEFAULT_SEED: [u32; 4] = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476];
/// Constants of the three rounds of MD4: 0, √2, √3.
const CONSTANTS: [u32; 3] = [0, 0x5A82_7999, 0x6ED9_EBA1];
/// Which input word each step of a round takes.
const ORDERS: [[usize; 8]; 3] = [
    [0, 1, 2, 3, 4, 5, 6, 7],
    [1, 3, 5, 7, 0, 2, 4, 6],
    [3, 7, 2, 6, 1, 5, 0, 4],
];
/// By how much the steps of a round rotate, in turn.
const ROTATIONS: [[u32; 4]; 3] = [[3, 7, 11, 19], [3, 5, 9, 13], [3, 9, 11, 15]];

/// The start of the register for a seed of the superblock; all zero means the default.
pub(crate) fn seed(bytes: &[u8; 16]) -> [u32; 4] {
    if bytes == &[0; 16] {
        return DEFAULT_SEED;
    }
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = bytes.try_into().map_or(0, u32::from_le_bytes);
    }
    words
}

/// The hash of a name, with the lowest bit clear and never the mark of the end.
pub(crate) fn half_md4(name: &[u8], seed: [u32; 4]) -> u32 {
    let mut register = seed;
    for start in (0..name.len()).step_by(CHUNK) {
        let words = words_of(&name[start..]);
        transform(&mut register, &words);
    }
    let hash = register[1] & !1;
    if hash == EXT4_HTREE_EOF_32BIT << 1 {
        return (EXT4_HTREE_EOF_32BIT - 1) << 1;
    }
    hash
}

/// Eight words from the rest of a name: characters shifted in from the right, sign-extended, over
/// a padding made of the length.
fn words_of(rest: &[u8]) -> [u32; 8] {
    let length = u32::try_from(rest.len()).unwrap_or(u32::MAX);
    let pad = length | (length << 8);
    let pad = pad | (pad << 16);
    let mut words = [pad; 8];
    let taken = rest.len().min(CHUNK);
    for (word, bytes) in words.iter_mut().zip(rest[..taken].chunks(4)) {
        for byte in bytes {
            let signed = i32::from(byte.cast_signed()).cast_unsigned();
            *word = signed.wrapping_add(*word << 8);
        }
    }
    words
}

fn mix(round: usize, x: u32, y: u32, z: u32) -> u32 {
    match round {
        0 => z ^ (x & (y ^ z)),
        1 => (x & y).wrapping_add((x ^ y) & z),
        _ => x ^ y ^ z,
    }
}

fn transform(register: &mut [u32; 4], words: &[u32; 8]) {
    let [mut a, mut b, mut c, mut d] = *register;
    for round in 0..3 {
        for (step, word) in ORDERS[round].iter().enumerate() {
            let sum = a
                .wrapping_add(mix(round, b, c, d))
                .wrapping_add(words[*word])
                .wrapping_add(CONSTANTS[round]);
            let rotated = sum.rotate_left(ROTATIONS[round][step % 4]);
            (a, b, c, d) = (d, rotated, b, c);
        }
    }
    for (word, add) in register.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `debugfs -R "dx_hash -h half_md4 [-s UUID] NAME"` of e2fsprogs 1.47.0.
    #[test]
    fn agrees_with_debugfs() {
        for (name, expected) in GOLDEN {
            assert_eq!(half_md4(name.as_bytes(), DEFAULT_SEED), *expected, "{name}");
        }
    }

    const GOLDEN: &[(&str, u32)] = &[
        ("hello", 0x1746_da32),
        ("linux-image-6.12.48+deb13-amd64", 0x536b_035e),
        (
            "a-name-that-is-longer-than-thirty-two-characters-for-sure",
            0x4eeb_04e2,
        ),
        ("grün", 0x095d_9284),
    ];

    #[test]
    fn a_seed_changes_the_hash() {
        let bytes = std::array::from_fn(|at| u8::try_from(at + 1).unwrap());
        assert_eq!(half_md4(b"hello", seed(&bytes)), 0xe2dd_f968);
        assert_eq!(seed(&[0; 16]), DEFAULT_SEED);
    }
}

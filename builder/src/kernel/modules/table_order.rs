//! The order in which kmod's hash tables give back what is in them.
//!
//! depmod lists symbols, and modules that `modules.order` lacks, in the order of its tables: by
//! bucket, then by name. A bucket is the low bits of Paul Hsieh's SuperFastHash of the name.

/// Where a table with `buckets` buckets (a power of two) has `name`; sort by this, then by name.
pub(super) fn bucket(name: &str, buckets: u32) -> u32 {
    super_fast_hash(name.as_bytes()) & (buckets - 1)
}

fn super_fast_hash(bytes: &[u8]) -> u32 {
    let pair = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]));
    // The length is taken modulo 2^32, as all of this is.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let (words, rest) = bytes.as_chunks::<4>();
    let mut hash = length;
    for [a, b, c, d] in words {
        hash = hash.wrapping_add(pair(*a, *b));
        hash = (hash << 16) ^ (pair(*c, *d) << 11) ^ hash;
        hash = hash.wrapping_add(hash >> 11);
    }
    match *rest {
        [a, b, c] => {
            hash = hash.wrapping_add(pair(a, b));
            hash ^= hash << 16;
            hash ^= u32::from(c) << 18;
            hash = hash.wrapping_add(hash >> 11);
        }
        [a, b] => {
            hash = hash.wrapping_add(pair(a, b));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [a] => {
            hash = hash.wrapping_add(u32::from(a));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        _ => {}
    }
    for (left, right) in [(3, 5), (4, 17), (25, 6)] {
        hash ^= hash << left;
        hash = hash.wrapping_add(hash >> right);
    }
    hash
}

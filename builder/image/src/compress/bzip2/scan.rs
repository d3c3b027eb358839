//! Finding the magic numbers of bzip2 blocks, which stand at any bit.

/// Bits of a magic number.
pub(super) const MAGIC_BITS: u64 = 48;
/// What a block starts with: the digits of pi.
pub(super) const BLOCK_MAGIC: u64 = 0x3141_5926_5359;
/// What ends a stream: the digits of pi's square root.
pub(super) const END_MAGIC: u64 = 0x1772_4538_5090;

const MAGIC_MASK: u64 = (1 << MAGIC_BITS) - 1;

/// Which magic number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Magic {
    /// A block follows.
    Block,
    /// The stream's checksum follows.
    End,
}

/// Looks for magic numbers.
///
/// At whatever bit one starts, it covers five whole bytes. So of each four neighbouring pairs of
/// bytes one lies within it, and only every fourth pair of the input needs a look.
pub(super) struct Scanner {
    /// For each pair of bytes, in which of the four places it can stand in a magic number.
    places: Vec<u8>,
}

impl Scanner {
    pub(super) fn new() -> Self {
        let mut places = vec![0; 1 << 16];
        for magic in [BLOCK_MAGIC, END_MAGIC] {
            for shift in 0..8 {
                // The magic number in seven bytes, at bit `shift` of the first.
                let bytes = (magic << (8 - shift)).to_be_bytes();
                for place in 0..4 {
                    let pair = [bytes[place + 2], bytes[place + 3]];
                    places[usize::from(u16::from_be_bytes(pair))] |= 1 << place;
                }
            }
        }
        Self { places }
    }

    /// The first magic number that starts at bit `from` or later and lies wholly in `bytes`.
    pub(super) fn find(&self, bytes: &[u8], from: usize) -> Option<(usize, Magic)> {
        let first = from / 8;
        let mut pair = first.saturating_add(1);
        while let Some(two) = bytes.get(pair..).and_then(|rest| rest.first_chunk::<2>()) {
            let places = self.places[usize::from(u16::from_be_bytes(*two))];
            if places != 0 {
                // The later the place, the earlier the start.
                for place in (0..4_usize)
                    .rev()
                    .filter(|place| places & (1 << place) != 0)
                {
                    let start = pair.checked_sub(place.saturating_add(1));
                    let found = start
                        .filter(|start| *start >= first)
                        .and_then(|start| starting_in(bytes, start, from));
                    if found.is_some() {
                        return found;
                    }
                }
            }
            pair = pair.saturating_add(4);
        }
        None
    }
}

/// A magic number whose first bit is in byte `start`, not before bit `from`.
fn starting_in(bytes: &[u8], start: usize, from: usize) -> Option<(usize, Magic)> {
    (0..8)
        .map(|shift| start.saturating_mul(8).saturating_add(shift))
        .filter(|bit| *bit >= from)
        .find_map(|bit| Some((bit, magic_at(bytes, bit)?)))
}

/// The magic number at a bit.
pub(super) fn magic_at(bytes: &[u8], bit: usize) -> Option<Magic> {
    let rest = bytes.get(bit / 8..)?;
    let shift = bit % 8;
    let needed = if shift == 0 { 6 } else { 7 };
    let mut window = [0; 8];
    window[..needed].copy_from_slice(rest.get(..needed)?);
    match (u64::from_be_bytes(window) >> (16 - shift)) & MAGIC_MASK {
        BLOCK_MAGIC => Some(Magic::Block),
        END_MAGIC => Some(Magic::End),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_and_shift_is_found() {
        let scanner = Scanner::new();
        for (magic, name) in [(BLOCK_MAGIC, Magic::Block), (END_MAGIC, Magic::End)] {
            for bit in 0..100 {
                let mut bytes = [0x55_u8; 20];
                for (index, at) in (bit..bit + 48).enumerate() {
                    let set = magic >> (47 - index) & 1 != 0;
                    let mask = 0x80 >> (at % 8);
                    bytes[at / 8] = bytes[at / 8] & !mask | if set { mask } else { 0 };
                }
                for from in [0, bit / 2, bit.saturating_sub(1), bit] {
                    assert_eq!(scanner.find(&bytes, from), Some((bit, name)), "{from}");
                }
                assert_eq!(scanner.find(&bytes, bit + 1), None);
                let needed = (bit + 48).div_ceil(8);
                assert_eq!(scanner.find(&bytes[..needed], 0), Some((bit, name)));
                assert_eq!(scanner.find(&bytes[..needed - 1], 0), None);
            }
        }
    }

    /// [`super::super::block`] tells where a block ends to eight bits, and relies on this.
    #[test]
    fn no_two_magic_numbers_start_within_eight_bits() {
        for shift in 1..8 {
            for first in [BLOCK_MAGIC, END_MAGIC] {
                for second in [BLOCK_MAGIC, END_MAGIC] {
                    let rest = (1 << (48 - shift)) - 1;
                    assert_ne!(first & rest, second >> shift, "{shift}");
                }
            }
        }
    }
}

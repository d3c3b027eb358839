//! bzip2 streams that no compressor writes: magic numbers inside of blocks.

use super::*;

/// Bits, most significant first.
#[derive(Default)]
struct Bits(Vec<bool>);

impl Bits {
    fn put(&mut self, count: u32, value: u64) {
        self.0
            .extend((0..count).rev().map(|bit| value >> bit & 1 != 0));
    }

    fn bytes(&self) -> Vec<u8> {
        let byte = |bits: &[bool]| {
            let set = bits.iter().enumerate().filter(|(_, bit)| **bit);
            set.fold(0_u8, |byte, (index, _)| byte | 0x80 >> index)
        };
        self.0.chunks(8).map(byte).collect()
    }
}

fn checksum(content: &[u8]) -> u32 {
    let step = |crc: u32, _| crc << 1 ^ if crc >> 31 != 0 { 0x04c1_1db7 } else { 0 };
    !content.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, step)
    })
}

/// The codes' lengths that a coding table says, in the format's steps: 0 is the next symbol, 10
/// one longer, 11 one shorter. Pads the table to 258 symbols.
fn finish_table(table: &mut Bits) -> Vec<u32> {
    let mut length = table.0[..5]
        .iter()
        .fold(0, |sum, bit| sum * 2 + u32::from(*bit));
    let mut lengths = Vec::new();
    let mut at = 5;
    while lengths.len() < 258 {
        if at == table.0.len() {
            table.0.push(false);
        }
        if !table.0[at] {
            lengths.push(length);
            at += 1;
            continue;
        }
        if at + 1 == table.0.len() {
            table.0.push(false);
        }
        length = if table.0[at + 1] {
            length - 1
        } else {
            length + 1
        };
        assert!((1..=20).contains(&length));
        at += 2;
    }
    lengths
}

/// Appends a block whose coding table starts with `steps`. The content has no runs of four.
fn append_block(out: &mut Bits, content: &[u8], steps: &Bits) {
    let count = content.len();
    let mut rotations: Vec<usize> = (0..count).collect();
    let rotation = |start: usize| (0..count).map(move |index| content[(start + index) % count]);
    rotations.sort_by(|a, b| rotation(*a).cmp(rotation(*b)));
    let origin = rotations.iter().position(|start| *start == 0).unwrap();
    let last = rotations
        .iter()
        .map(|start| content[(start + count - 1) % count]);

    let mut symbols = Vec::new();
    let mut recent: Vec<u8> = (0..=255).collect();
    let mut run = 0_usize;
    let end_run = |run: &mut usize, symbols: &mut Vec<usize>| {
        while *run > 0 {
            symbols.push((*run - 1) % 2);
            *run = (*run - 1) / 2;
        }
    };
    for byte in last {
        let place = recent.iter().position(|known| *known == byte).unwrap();
        if place == 0 {
            run += 1;
            continue;
        }
        end_run(&mut run, &mut symbols);
        recent.remove(place);
        recent.insert(0, byte);
        symbols.push(place + 1);
    }
    end_run(&mut run, &mut symbols);
    symbols.push(257);

    out.put(48, 0x3141_5926_5359);
    out.put(32, u64::from(checksum(content)));
    out.put(1, 0);
    out.put(24, u64::try_from(origin).unwrap());
    // All 256 bytes may appear.
    out.put(16, 0xffff);
    (0..16).for_each(|_| out.put(16, 0xffff));
    // Two tables; every group uses the first.
    let groups = symbols.len().div_ceil(50);
    out.put(3, 2);
    out.put(15, u64::try_from(groups).unwrap());
    (0..groups).for_each(|_| out.put(1, 0));
    let mut table = Bits::default();
    table.put(5, 10);
    table.0.extend(&steps.0);
    let lengths = finish_table(&mut table);
    (0..2).for_each(|_| out.0.extend(&table.0));

    let mut codes = vec![0; 258];
    let mut code = 0_u64;
    for length in 1..=20 {
        for symbol in (0..258).filter(|symbol| lengths[*symbol] == length) {
            codes[symbol] = code;
            code += 1;
        }
        code <<= 1;
    }
    for symbol in symbols {
        out.put(lengths[symbol], codes[symbol]);
    }
}

/// A stream of these blocks.
fn stream(blocks: &[(&[u8], &Bits)]) -> Vec<u8> {
    let mut out = Bits::default();
    out.put(32, 0x425a_6839);
    let mut combined = 0_u32;
    for (content, steps) in blocks {
        append_block(&mut out, content, steps);
        combined = combined.rotate_left(1) ^ checksum(content);
    }
    out.put(48, 0x1772_4538_5090);
    out.put(32, u64::from(combined));
    out.bytes()
}

/// Steps of a table that hold these bits, and are back at the length that they started from.
fn steps(magics: &[u64]) -> Bits {
    let mut steps = Bits::default();
    for magic in magics {
        let start = steps.0.len();
        steps.put(48, *magic);
        let (mut at, mut longer) = (start, 0);
        while at < steps.0.len() {
            if !steps.0[at] {
                at += 1;
                continue;
            }
            if at + 1 == steps.0.len() {
                steps.0.push(false);
            }
            longer += if steps.0[at + 1] { -1 } else { 1 };
            at += 2;
        }
        for _ in 0..i32::abs(longer) {
            steps.put(2, if longer > 0 { 0b11 } else { 0b10 });
        }
        steps.put(1, 0);
    }
    steps
}

const BLOCK: u64 = 0x3141_5926_5359;
const END: u64 = 0x1772_4538_5090;

fn content(seed: u8) -> Vec<u8> {
    (0..=200_u8)
        .map(|index| index.wrapping_mul(seed) ^ seed)
        .collect()
}

#[test]
fn magic_numbers_inside_of_blocks_are_data() {
    let plain = Bits::default();
    let (first, second) = (content(7), content(31));
    for inside in [&[BLOCK][..], &[END], &[BLOCK, END], &[END, BLOCK, BLOCK]] {
        let inside = steps(inside);
        for blocks in [
            &[(&first[..], &inside)][..],
            &[(&first, &plain), (&second, &inside)],
            &[(&first, &inside), (&second, &inside), (&first, &plain)],
        ] {
            let bytes = stream(blocks);
            let expected: Vec<u8> = blocks
                .iter()
                .flat_map(|(bytes, _)| bytes.to_vec())
                .collect();
            let twice = [bytes.clone(), bytes.clone()].concat();
            assert!(unpack(bytes.clone(), Limits::default()).unwrap().1 == expected);
            assert!(unpack(twice, Limits::default()).unwrap().1 == expected.repeat(2));
            for end in (0..bytes.len()).step_by(3) {
                assert!(end < 4 || unpack(bytes[..end].to_vec(), Limits::default()).is_err());
            }
        }
    }
}

#[test]
fn many_false_magic_numbers_are_survived() {
    let inside = steps(&[BLOCK, END, END, BLOCK]);
    let content = content(13);
    let blocks = vec![(&content[..], &inside); 40];
    let bytes = stream(&blocks);
    assert!(unpack(bytes, Limits::default()).unwrap().1 == content.repeat(40));
}

#[test]
fn damage_near_false_magic_numbers_has_one_verdict() {
    let inside = steps(&[BLOCK, END]);
    let content = content(99);
    let bytes = stream(&[(&content, &inside), (&content, &Bits::default())]);
    for index in 4..bytes.len() {
        let mut changed = bytes.clone();
        changed[index] ^= 1 << (index % 8);
        let _ = unpack(changed, Limits::default());
    }
}

#[test]
fn endless_tables_are_refused_by_name() {
    let mut longer = Bits::default();
    (0..(9 << 20)).for_each(|_| longer.put(4, 0b1011));
    let bytes = stream(&[(&content(3), &longer)]);
    let error = unpack_threaded(&bytes, Limits::default(), 2).unwrap_err();
    assert!(
        error.to_string().contains("more than 4194304 bytes"),
        "{error}"
    );
}

//! Long names and the short ones beside them.

use std::collections::{BTreeMap, BTreeSet};

/// A short name: eight letters and three, filled with spaces.
pub(super) type ShortName = [u8; 11];

/// UTF-16 units in one piece of a long name.
pub(super) const UNITS: usize = 13;
/// The longest name in UTF-16 units.
pub(super) const UNITS_MAX: usize = 255;
/// The largest number behind the tilde of a short name.
const TAIL_MAX: u32 = 999_999;

/// Why a name cannot be FAT's.
pub(super) fn check(name: &str) -> Result<(), &'static str> {
    let forbidden = |letter: char| letter < ' ' || "\"*/:<>?\\|\u{7f}".contains(letter);
    if name.chars().any(forbidden) {
        return Err("a name with control letters or any of \" * / : < > ? \\ |");
    }
    if name.ends_with(['.', ' ']) {
        return Err("a name that ends with a full stop or space");
    }
    if name.encode_utf16().count() > UNITS_MAX {
        return Err("a name of more than 255 UTF-16 units");
    }
    Ok(())
}

/// What two names have in common that FAT takes for one.
pub(super) fn folded(name: &str) -> String {
    name.chars()
        .map(|letter| {
            let mut upper = letter.to_uppercase();
            match (upper.next(), upper.next()) {
                (Some(only), None) => only,
                _ => letter,
            }
        })
        .collect()
}

fn is_short_letter(letter: u8) -> bool {
    letter.is_ascii_uppercase() || letter.is_ascii_digit() || b"$%'-_@~`!(){}^#&".contains(&letter)
}

/// Whether a label may have this letter.
pub(super) fn is_label_letter(letter: u8) -> bool {
    letter == b' ' || is_short_letter(letter)
}

/// The name as a short one, where it is one already.
fn exact(name: &str) -> Option<ShortName> {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let is_plain = |part: &str| part.bytes().all(is_short_letter);
    let has_dot = name.contains('.');
    if base.is_empty() || base.len() > 8 || extension.len() > 3 || has_dot && extension.is_empty() {
        return None;
    }
    (is_plain(base) && is_plain(extension)).then(|| joined(base.as_bytes(), extension.as_bytes()))
}

fn joined(base: &[u8], extension: &[u8]) -> ShortName {
    let mut short = [b' '; 11];
    short[..base.len()].copy_from_slice(base);
    short[8..8 + extension.len()].copy_from_slice(extension);
    short
}

/// The letters that a short name takes from a long one: base and extension, and whether all did.
fn basis(name: &str) -> (Vec<u8>, Vec<u8>, bool) {
    let trimmed = name.trim_start_matches(['.', ' ']);
    let (base, extension) = trimmed.rsplit_once('.').unwrap_or((trimmed, ""));
    let mut is_whole = trimmed.len() == name.len();
    let mut taken = |part: &str, length: usize| {
        let mut letters = Vec::new();
        for letter in part.chars() {
            if matches!(letter, '.' | ' ') {
                is_whole = false;
                continue;
            }
            let upper = u8::try_from(letter.to_ascii_uppercase()).unwrap_or(0);
            let is_kept = is_short_letter(upper);
            is_whole &= is_kept && letters.len() < length;
            letters.push(if is_kept { upper } else { b'_' });
        }
        letters.truncate(length);
        letters
    };
    let (mut base, extension) = (taken(base, 8), taken(extension, 3));
    if base.is_empty() {
        base.push(b'_');
        is_whole = false;
    }
    (base, extension, is_whole)
}

/// The short name of each of a folder's names, and whether it needs a long one beside it.
/// `None`: there are no more short names.
pub(super) fn short_names(names: &[&str]) -> Option<Vec<(ShortName, bool)>> {
    let exact: Vec<Option<ShortName>> = names.iter().map(|name| exact(name)).collect();
    let mut used: BTreeSet<ShortName> = exact.iter().flatten().copied().collect();
    let mut tails: BTreeMap<(Vec<u8>, Vec<u8>), u32> = BTreeMap::new();
    let mut all = Vec::new();
    for (name, exact) in names.iter().zip(exact) {
        if let Some(exact) = exact {
            all.push((exact, false));
            continue;
        }
        let (base, extension, is_whole) = basis(name);
        let plain = joined(&base, &extension);
        if is_whole && used.insert(plain) {
            all.push((plain, true));
            continue;
        }
        // Names that differ only behind the tilde's place share a counter.
        let stem = &base[..base.len().min(6)];
        let tail = tails.entry((stem.to_vec(), extension.clone())).or_insert(0);
        loop {
            *tail += 1;
            if *tail > TAIL_MAX {
                return None;
            }
            let number = format!("~{tail}");
            let kept = stem.len().min(8 - number.len());
            let short = joined(&[&stem[..kept], number.as_bytes()].concat(), &extension);
            if used.insert(short) {
                all.push((short, true));
                break;
            }
        }
    }
    Some(all)
}

/// What ties the pieces of a long name to its short one.
pub(super) fn checksum(short: &ShortName) -> u8 {
    short.iter().fold(0_u8, |sum, letter| {
        sum.rotate_right(1).wrapping_add(*letter)
    })
}

/// A short name as text; the flags of `case` are Windows NT's: 8 for a base, 16 for an extension
/// in small letters.
pub(super) fn short_text(short: &ShortName, case: u8) -> String {
    let part = |letters: &[u8], is_small: bool| {
        let length = letters.iter().rposition(|letter| *letter != b' ');
        let letters = &letters[..length.map_or(0, |last| last + 1)];
        let text: String = letters.iter().map(|letter| decoded(*letter)).collect();
        if is_small {
            text.to_ascii_lowercase()
        } else {
            text
        }
    };
    let mut letters = *short;
    // A first letter 0xE5 would mean that the entry is deleted.
    if letters[0] == 0x05 {
        letters[0] = 0xE5;
    }
    let base = part(&letters[..8], case & 8 != 0);
    let extension = part(&letters[8..], case & 16 != 0);
    if extension.is_empty() {
        base
    } else {
        format!("{base}.{extension}")
    }
}

/// The upper half of code page 437, which Linux assumes, too.
const CODE_PAGE: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
    └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

pub(super) fn decoded(letter: u8) -> char {
    match letter.checked_sub(0x80) {
        None => char::from(letter),
        Some(index) => CODE_PAGE
            .chars()
            .nth(usize::from(index))
            .unwrap_or(char::REPLACEMENT_CHARACTER),
    }
}

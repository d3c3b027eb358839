//! Names that somebody may have meant.

/// As many names as a sentence can hold.
const NEAREST_MAX: usize = 3;
/// Longer names are not compared; the kernel's longest has 60 bytes.
const NAME_BYTES_MAX: usize = 128;
/// Below this, two names have nothing to do with one another.
const SCORE_MIN: f64 = 0.65;

/// The names that are most alike, the best first.
pub(super) fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    if name.len() > NAME_BYTES_MAX {
        return Vec::new();
    }
    let upper = name.to_ascii_uppercase();
    let words: Vec<&str> = upper.split('_').collect();
    let mut found: Vec<(f64, &str)> = names
        .filter(|other| other.len() <= NAME_BYTES_MAX)
        .map(|other| (score(&upper, &words, other), other))
        .filter(|(score, _)| *score >= SCORE_MIN)
        .collect();
    found.sort_by(|(one, left), (other, right)| other.total_cmp(one).then(left.cmp(right)));
    found.truncate(NEAREST_MAX);
    found.into_iter().map(|(_, name)| name).collect()
}

/// From 0 to 1. Symbols are renamed by words: `NETFILTER_XT_TARGET_LOG` became `NF_LOG_SYSLOG`,
/// `CRYPTO_SHA256_SSSE3` moved, `NFSD_V3` lost its end.
fn score(name: &str, words: &[&str], other: &str) -> f64 {
    let length = |text: &str| f64::from(u32::try_from(text.len()).unwrap_or(u32::MAX)).max(1.0);
    let (shorter, longer) = if name.len() < other.len() {
        (name, other)
    } else {
        (other, name)
    };
    let ratio = length(shorter) / length(longer);
    let shared = shared_words(words, other);
    // Nothing in common and of another length: not worth a closer look.
    if shared == 0.0 && ratio < SCORE_MIN && !begins_word(longer, shorter) {
        return 0.0;
    }
    let letters = strsim::normalized_damerau_levenshtein(name, other);
    let contained = if shorter.len() >= 4 && begins_word(longer, shorter) {
        0.5 + ratio / 2.0
    } else {
        0.0
    };
    letters
        .max(contained)
        .max(0.6 * shared + 0.4 * letters)
        .min(1.0)
}

/// Whether the longer name has the shorter one from the beginning of a word on.
fn begins_word(longer: &str, shorter: &str) -> bool {
    let mut found = longer.match_indices(shorter);
    found.any(|(at, _)| at == 0 || longer.as_bytes().get(at - 1) == Some(&b'_'))
}

/// The share of words that both have, in whatever order.
fn shared_words(words: &[&str], other: &str) -> f64 {
    let mut common = 0_u32;
    let mut all = u32::try_from(words.len()).unwrap_or(u32::MAX);
    for word in other.split('_') {
        if words.contains(&word) {
            common += 1;
        } else {
            all = all.saturating_add(1);
        }
    }
    f64::from(common) / f64::from(all.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renamed_and_mistyped_symbols_are_found() {
        let names = [
            "EXT2_FS",
            "EXT4_FS",
            "NFS_FS",
            "NFS_V3",
            "NFSD",
            "NFSD_V4",
            "VIRTIO_BLK",
            "VIRTIO_NET",
            "CRYPTO_LIB_SHA256",
            "CRYPTO_SHA256",
            "USB",
            "DEVTMPFS_MOUNT",
        ];
        let best = |name: &str| nearest(name, names.into_iter()).first().copied();
        assert_eq!(best("EXT3_FS"), Some("EXT2_FS"));
        assert_eq!(best("VIRTIO_BLOCK"), Some("VIRTIO_BLK"));
        assert_eq!(best("NFSD_V3"), Some("NFSD_V4"));
        assert_eq!(best("FS_NFS"), Some("NFS_FS"));
        assert_eq!(best("CRYPTO_SHA256_SSSE3"), Some("CRYPTO_SHA256"));
        assert_eq!(best("virtio_net"), Some("VIRTIO_NET"));
        assert_eq!(best("MOSIX"), None);
        assert_eq!(best("UFS"), None);
        assert_eq!(best("MPFS"), None);
    }
}

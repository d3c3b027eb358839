//! The kernel inside of a boot image (`bzImage`) of x86.
//!
//! The setup header of the boot protocol (`Documentation/arch/x86/boot.rst`) says since version
//! 2.08 where the compressed kernel is: `payload_offset` and `payload_length`, counted from the
//! part behind the setup's sectors. But for gzip, whose own end has it, the size of the unpacked
//! kernel follows in four bytes.

use std::io::Read;

use coop_image::compress::{self, Compression, Limits};

/// The largest unpacked kernel, in bytes.
const KERNEL_BYTES_MAX: u64 = 512 << 20;
const SECTOR_BYTES: usize = 512;
/// `setup_sects`; 0 means [`SETUP_SECTORS_OLD`].
const SETUP_SECTORS: usize = 0x1f1;
const SETUP_SECTORS_OLD: usize = 4;
/// `header`, which is [`MAGIC`], then `version`.
const HEADER: usize = 0x202;
const MAGIC: &[u8] = b"HdrS";
const VERSION: usize = 0x206;
/// The first version with a place for the payload.
const VERSION_OLDEST: u32 = 0x0208;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// Bytes of the size behind a payload.
const SIZE_BYTES: usize = 4;
/// Formats that a kernel can be compressed with and that nothing here reads.
const UNREAD: [(&[u8], &str); 3] = [
    (&[0x02, 0x21, 0x4c, 0x18], "lz4"),
    (&[0x89, b'L', b'Z', b'O'], "lzo"),
    (&[0x5d, 0, 0], "lzma"),
];

/// Takes the kernel, an ELF executable, out of a boot image. The table of its relocations may
/// follow it, as in the kernel's own build.
///
/// # Errors
/// A sentence: it is no boot image, too old a one, damaged, or compressed in a way that is not
/// read.
pub(super) fn vmlinux(image: &[u8]) -> Result<Vec<u8>, String> {
    let payload = payload(image)?;
    let kernel = if payload.starts_with(&object::elf::ELFMAG) {
        payload.to_vec()
    } else {
        unpack(payload)?
    };
    if !kernel.starts_with(&object::elf::ELFMAG) {
        return Err("does not hold an ELF executable".into());
    }
    Ok(kernel)
}

fn payload(image: &[u8]) -> Result<&[u8], String> {
    let bytes = |at: usize, count: usize| -> Result<u32, String> {
        let field = image.get(at..at + count).ok_or("is no boot image of x86")?;
        let number = field.iter().rev();
        Ok(number.fold(0, |number, byte| number << 8 | u32::from(*byte)))
    };
    if image.get(HEADER..HEADER + MAGIC.len()) != Some(MAGIC) {
        return Err("is no boot image of x86".into());
    }
    let version = bytes(VERSION, 2)?;
    if version < VERSION_OLDEST {
        let (major, minor) = (version >> 8, version & 0xff);
        return Err(format!(
            "has version {major}.{minor:02} of the boot protocol, which does not say where the \
             kernel is; 2.08 and later do"
        ));
    }
    let setup = match image.get(SETUP_SECTORS) {
        Some(0) | None => SETUP_SECTORS_OLD,
        Some(count) => usize::from(*count),
    };
    let number = |at| usize::try_from(bytes(at, 4)?).map_err(|error| error.to_string());
    let start = (setup + 1) * SECTOR_BYTES;
    let start = start.saturating_add(number(PAYLOAD_OFFSET)?);
    let end = start.saturating_add(number(PAYLOAD_LENGTH)?);
    let payload = image.get(start..end);
    payload.ok_or_else(|| "says that its kernel is outside of itself".into())
}

fn unpack(payload: &[u8]) -> Result<Vec<u8>, String> {
    if let Some((_, name)) = UNREAD.iter().find(|(magic, _)| payload.starts_with(magic)) {
        return Err(format!(
            "has a kernel compressed with {name}, which is not supported; gzip, bzip2, xz and zstd \
             are"
        ));
    }
    let cannot = |error| format!("has a kernel that cannot be unpacked: {error}");
    let format = Compression::detect(payload).map_err(|error| cannot(error.into()))?;
    let (packed, size) = match (format, payload.split_last_chunk::<SIZE_BYTES>()) {
        (Compression::None, _) | (_, None) => {
            return Err("has a kernel compressed in an unknown way".into());
        }
        (Compression::Gzip, _) => (payload, None),
        (_, Some((packed, size))) => (packed, Some(u32::from_le_bytes(*size))),
    };
    let limits = Limits {
        output_bytes: KERNEL_BYTES_MAX,
        ..Limits::default()
    };
    let mut kernel = Vec::new();
    compress::decompress(packed, limits)
        .and_then(|(_, mut reader)| reader.read_to_end(&mut kernel))
        .map_err(cannot)?;
    let is_other = |size| usize::try_from(size) != Ok(kernel.len());
    if let Some(size) = size.filter(|size| is_other(*size)) {
        return Err(format!(
            "has a kernel of {} bytes where {size} are announced",
            kernel.len()
        ));
    }
    Ok(kernel)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;

    /// A boot image with this payload.
    pub(in crate::kernel) fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 3 * SECTOR_BYTES + 16];
        image[SETUP_SECTORS] = 2;
        image[HEADER..HEADER + 4].copy_from_slice(MAGIC);
        image[VERSION..VERSION + 2].copy_from_slice(&[0x0f, 2]);
        image[PAYLOAD_OFFSET] = 16;
        let length = u32::try_from(payload.len()).unwrap();
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        image.extend_from_slice(payload);
        image.extend_from_slice(b"signature");
        image
    }

    pub(in crate::kernel) fn gzip(bytes: &[u8]) -> Vec<u8> {
        let level = flate2::Compression::fast();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// A zstd frame of one stored block.
    fn zstd(bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).unwrap();
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x20, length];
        let block = u32::from(length) << 3 | 1;
        frame.extend(&block.to_le_bytes()[..3]);
        frame.extend_from_slice(bytes);
        frame
    }

    #[test]
    fn the_kernel_is_found_plain_and_compressed() {
        let kernel = b"\x7fELF and so on";
        let size = u32::try_from(kernel.len()).unwrap().to_le_bytes();
        assert_eq!(vmlinux(&image(kernel)).unwrap(), kernel);
        assert_eq!(vmlinux(&image(&gzip(kernel))).unwrap(), kernel);
        let packed = [&zstd(kernel)[..], &size].concat();
        assert_eq!(vmlinux(&image(&packed)).unwrap(), kernel);
        let packed = [&zstd(kernel)[..], &[1, 0, 0, 0]].concat();
        let error = vmlinux(&image(&packed)).unwrap_err();
        assert_eq!(error, "has a kernel of 14 bytes where 1 are announced");
    }

    #[test]
    fn what_is_no_kernel_is_refused_by_name() {
        let error = |image: &[u8]| vmlinux(image).unwrap_err();
        assert_eq!(error(b""), "is no boot image of x86");
        assert_eq!(error(&[0; 2000]), "is no boot image of x86");
        assert!(error(&image(&[0x02, 0x21, 0x4c, 0x18, 0, 0])).contains("with lz4,"));
        assert!(error(&image(&[0x89, b'L', b'Z', b'O', 0])).contains("with lzo,"));
        assert!(error(&image(&[0x5d, 0, 0, 0, 1])).contains("with lzma,"));
        assert!(error(&image(b"whatever")).ends_with("in an unknown way"));
        assert!(error(&image(b"")).ends_with("in an unknown way"));
        assert_eq!(
            error(&image(&gzip(b"text"))),
            "does not hold an ELF executable"
        );
        let mut old = image(b"\x7fELF");
        old[VERSION] = 7;
        assert!(error(&old).contains("version 2.07 of the boot protocol"));
        let mut cut = image(b"\x7fELF");
        cut.truncate(3 * SECTOR_BYTES);
        assert_eq!(error(&cut), "says that its kernel is outside of itself");
    }

    #[test]
    fn no_damage_is_a_panic() {
        let whole = image(&gzip(b"\x7fELF and so on"));
        for length in 0..whole.len() {
            let _ = vmlinux(&whole[..length]);
        }
        for index in SETUP_SECTORS..whole.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut mutated = whole.clone();
                mutated[index] ^= mask;
                let _ = vmlinux(&mutated);
            }
        }
    }
}

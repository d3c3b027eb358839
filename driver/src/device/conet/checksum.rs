//! Checksums that the guest is to finish.
//!
//! A frame that never leaves memory needs no checksum. Linux still wants to be able to make one,
//! should the guest pass the frame on: the field then holds the sum of the pseudo header (RFC 9293
//! 3.1), and whoever sends the frame over a real wire adds the rest.

use super::frame::{ETHERNET_HEADER_BYTES, IPV4_HEADER_BYTES};

/// Where a TCP header begins in our frames: they have no IP options.
pub(super) const TCP_AT: u16 = 34;
/// Where its checksum lies in a TCP header.
pub(super) const TCP_CHECKSUM_AT: u16 = 16;
const ETHERTYPE_IPV4: [u8; 2] = [8, 0];
const VERSION_AND_HEADER_LENGTH: u8 = 0x45;
const PROTOCOL_TCP: u8 = 6;

/// Writes the pseudo header's sum into the checksum of one of our TCP frames. False: it is another
/// kind of frame, and was left alone.
pub(super) fn begin(frame: &mut [u8]) -> bool {
    let Some((ethernet, packet)) = frame.split_at_mut_checked(ETHERNET_HEADER_BYTES) else {
        return false;
    };
    let Some((header, segment)) = packet.split_at_mut_checked(IPV4_HEADER_BYTES) else {
        return false;
    };
    let ours = ethernet.ends_with(&ETHERTYPE_IPV4)
        && header.first() == Some(&VERSION_AND_HEADER_LENGTH)
        && header.get(9) == Some(&PROTOCOL_TCP);
    let at = usize::from(TCP_CHECKSUM_AT);
    let (Some(addresses), Ok(length)) = (header.get(12..20), u32::try_from(segment.len())) else {
        return false;
    };
    let mut sum = u32::from(PROTOCOL_TCP) + length;
    for pair in addresses.chunks_exact(2) {
        if let &[high, low] = pair {
            sum += u32::from(u16::from_be_bytes([high, low]));
        }
    }
    let folded = (sum & 0xffff) + (sum >> 16);
    let [.., high, low] = ((folded & 0xffff) + (folded >> 16)).to_be_bytes();
    match segment.get_mut(at..at + 2) {
        Some(field) if ours => {
            field.copy_from_slice(&[high, low]);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ones' complement sum over bytes.
    fn sum(bytes: &[u8]) -> u16 {
        let mut total = 0_u32;
        for pair in bytes.chunks(2) {
            total += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        u16::try_from(total).unwrap()
    }

    #[test]
    fn the_rest_of_the_sum_makes_it_right() {
        let mut frame = vec![0; 14 + 20 + 20 + 7];
        frame[12..14].copy_from_slice(&ETHERTYPE_IPV4);
        frame[14] = VERSION_AND_HEADER_LENGTH;
        frame[23] = PROTOCOL_TCP;
        frame[26..34].copy_from_slice(&[10, 0, 2, 2, 10, 0, 2, 15]);
        frame[54..].copy_from_slice(b"payload");
        assert!(begin(&mut frame));
        // What a driver does with csum_start and csum_offset.
        let complete = !sum(&frame[34..]);
        frame[50..52].copy_from_slice(&complete.to_be_bytes());
        let mut whole = vec![10, 0, 2, 2, 10, 0, 2, 15, 0, 6, 0, 27];
        whole.extend(&frame[34..]);
        assert_eq!(sum(&whole), 0xffff);
    }

    #[test]
    fn other_frames_are_left_alone() {
        for length in 0..52 {
            assert!(!begin(&mut vec![0; length]));
        }
        let mut udp = vec![0; 100];
        udp[12..14].copy_from_slice(&ETHERTYPE_IPV4);
        udp[14] = VERSION_AND_HEADER_LENGTH;
        udp[23] = 17;
        let before = udp.clone();
        assert!(!begin(&mut udp));
        assert_eq!(udp, before);
    }
}

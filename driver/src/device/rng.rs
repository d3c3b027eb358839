//! Entropy (virtio 1.3, section 5.4): the host's `getrandom`.

use rustix::rand::{GetRandomFlags, getrandom};

use crate::transport::{Chain, Device, Queues};

/// Virtio's number of an entropy device.
const DEVICE_ID: u32 = 4;
/// Bytes given for one request at most; a driver asks again.
const REQUEST_BYTES_MAX: usize = 4096;

/// An entropy source.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rng;

/// Fills the beginning of a request, and says how many bytes.
fn fill(chain: &Chain) -> Option<usize> {
    let wanted = chain.writable();
    let (target, _) = wanted.split_at(wanted.len().min(REQUEST_BYTES_MAX)).ok()?;
    let mut bytes = vec![0; target.len()];
    let mut filled = 0;
    while filled < bytes.len() {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    target.copy_from(&bytes).ok()?;
    Some(bytes.len())
}

impl Device for Rng {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn queue_count(&self) -> usize {
        1
    }

    fn process(&mut self, queue: usize, queues: &mut Queues) {
        while let Some(chain) = queues.pop(queue) {
            if chain.writable().is_empty() {
                queues.refuse(chain);
                continue;
            }
            let written = fill(&chain);
            if written.is_none() {
                queues.count_failure();
            }
            queues.complete(chain, written.unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;
    use crate::transport::mock::bench;

    #[test]
    fn requests_are_filled() {
        let mut bench = bench(Rng);
        let (used, answers) = bench.guest.call(0, &[], &[64, 64]);
        assert_eq!(used, 128);
        assert_ne!(answers[0], answers[1]);
        assert_eq!(bench.guest.call(0, &[], &[10_000]).0, 4096);
        assert_eq!(bench.guest.call(0, &[b"nonsense"], &[]).0, 0);
        assert_eq!(bench.stop().malformed, 1);
    }
}

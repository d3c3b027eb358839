//! The guest's memory as its kernel shares it, and the part of it that it does not share.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap, MmapRegion, VolatileSlice,
};

/// Regions that a guest may share at most: a User-Mode-Linux kernel shares one or two.
const REGIONS_MAX: usize = 8;
/// Memory that a guest may share at most, in bytes.
const MEMORY_BYTES_MAX: u64 = 1 << 40;
/// The largest kernel image in front of the shared memory, in bytes.
const IMAGE_BYTES_MAX: u64 = 1 << 30;

/// A guest's process, and where its kernel's image begins in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestImage {
    /// The process.
    pub process_id: u32,
    /// Virtual address of guest address 0: where the kernel's executable is loaded.
    pub base: u64,
}

/// The process that a guest runs in, told by the engine once it has started it.
///
/// A User-Mode-Linux kernel does not share its own text, data and bss; requests that point there
/// (the zero page is one) are served by copying from and to this process. While it is not set
/// they are refused.
#[derive(Clone, Debug, Default)]
pub struct GuestProcess(Arc<Mutex<Option<GuestImage>>>);

impl GuestProcess {
    fn place(&self) -> MutexGuard<'_, Option<GuestImage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names the guest's process. It must be a child that has not been waited for, so that its
    /// number cannot come to mean another process.
    pub fn set(&self, image: GuestImage) {
        *self.place() = Some(image);
    }

    /// Forgets the process, once nobody uses it any more; to be called before it is waited for.
    pub fn clear(&self) {
        *self.place() = None;
    }

    /// Does something to the image while it is sure to be there.
    fn with(&self, work: impl FnOnce(GuestImage) -> io::Result<()>) -> io::Result<()> {
        let place = self.place();
        work((*place).ok_or(io::ErrorKind::PermissionDenied)?)
    }
}

/// Where bytes of a descriptor lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In memory that the guest shares.
    Shared,
    /// In the guest kernel's image.
    Image,
}

/// All memory of one guest, as one device sees it.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) map: GuestMemoryMmap<()>,
    /// Start and length of each region in the guest kernel's virtual addresses, and its guest
    /// address.
    translations: Vec<(u64, u64, u64)>,
    /// Where the shared memory begins; what is below is the kernel's image.
    image_end: u64,
    process: GuestProcess,
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn map_region(region: &VhostUserMemoryRegion, file: File) -> io::Result<GuestRegionMmap<()>> {
    let (offset, size) = (region.mmap_offset, region.memory_size);
    let metadata = file.metadata()?;
    let end = offset.checked_add(size);
    // Reading beyond a file's end is a SIGBUS, so the file must be there in full.
    if !metadata.is_file() || end.is_none_or(|end| end > metadata.len()) {
        return Err(invalid("a memory region lies outside its file"));
    }
    let length = usize::try_from(size).map_err(|_| invalid("a memory region is too large"))?;
    let mapped =
        MmapRegion::from_file(FileOffset::new(file, offset), length).map_err(io::Error::other)?;
    GuestRegionMmap::new(mapped, GuestAddress(region.guest_phys_addr))
        .ok_or_else(|| invalid("a memory region wraps around the address space"))
}

impl Memory {
    /// Maps what a guest offers.
    pub(crate) fn new(
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        process: GuestProcess,
    ) -> io::Result<Self> {
        if regions.is_empty() || regions.len() > REGIONS_MAX || regions.len() != files.len() {
            return Err(invalid("the number of memory regions is out of range"));
        }
        let total = regions
            .iter()
            .try_fold(0u64, |sum, region| sum.checked_add(region.memory_size));
        if total.is_none_or(|total| total > MEMORY_BYTES_MAX) {
            return Err(invalid("the memory regions are too large"));
        }
        let mut mapped = Vec::with_capacity(regions.len());
        let mut translations = Vec::with_capacity(regions.len());
        for (region, file) in regions.iter().zip(files) {
            let (start, size) = (region.user_addr, region.memory_size);
            if size == 0 || start.checked_add(size).is_none() {
                return Err(invalid("a memory region wraps around the address space"));
            }
            mapped.push(map_region(region, file)?);
            translations.push((start, size, region.guest_phys_addr));
        }
        mapped.sort_by_key(|region| region.start_addr());
        let map = GuestMemoryMmap::from_regions(mapped).map_err(io::Error::other)?;
        let image_end = translations.iter().map(|entry| entry.2).min().unwrap_or(0);
        Ok(Self {
            map,
            translations,
            image_end: image_end.min(IMAGE_BYTES_MAX),
            process,
        })
    }

    /// The guest address that a virtual address of the guest's kernel stands for.
    pub(crate) fn guest_address(&self, virtual_address: u64) -> Option<u64> {
        self.translations.iter().find_map(|&(start, size, guest)| {
            let inside = virtual_address.checked_sub(start)?;
            if inside < size {
                guest.checked_add(inside)
            } else {
                None
            }
        })
    }

    /// Where `length` bytes at a guest address lie, if they lie anywhere in one piece.
    pub(crate) fn place(&self, address: u64, length: usize) -> Option<Place> {
        if self.slice(address, length).is_some() {
            return Some(Place::Shared);
        }
        let end = address.checked_add(u64::try_from(length).ok()?)?;
        (end <= self.image_end).then_some(Place::Image)
    }

    /// Shared memory at a guest address, if all of it is in one region.
    pub(crate) fn slice(&self, address: u64, length: usize) -> Option<VolatileSlice<'_, ()>> {
        let (region, offset) = self.map.to_region_addr(GuestAddress(address))?;
        region.get_slice(offset, length).ok()
    }

    /// Copies from the kernel's image.
    pub(crate) fn read_image(&self, address: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.process.with(|image| {
            let address = image
                .base
                .checked_add(address)
                .ok_or(io::ErrorKind::InvalidInput)?;
            coop_driver_sys::memory::read_process(image.process_id, address, buffer)
        })
    }

    /// Copies into the kernel's image.
    pub(crate) fn write_image(&self, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.process.with(|image| {
            let address = image
                .base
                .checked_add(address)
                .ok_or(io::ErrorKind::InvalidInput)?;
            coop_driver_sys::memory::write_process(image.process_id, address, bytes)
        })
    }
}

//! A disk and its extents, one behind the other.

use std::fs::File;

use super::descriptor::{self, Descriptor, Kind};
use super::format::{DESCRIPTOR_BYTES_MAX, MAGIC};
use super::header::Header;
use super::sparse::{Access, Sparse};
use super::{corrupt, limit, unsupported};
use crate::disk::layer::{Layer, Place, Run, plain_run, read_exact, size_of};
use crate::disk::open::{Behind, Opened, Opener};
use crate::disk::pages::Pages;
use crate::disk::unpack::{Codec, Unpacker};
use crate::disk::{DiskError, Format, LeftBehind, Role};

/// A VMDK without what is behind it.
#[derive(Debug)]
struct Vmdk {
    size_bytes: u64,
    /// By their first byte; none is empty.
    extents: Vec<Extent>,
    files: Vec<File>,
    pages: Pages,
    unpacker: Unpacker,
}

#[derive(Debug)]
struct Extent {
    first_byte: u64,
    length: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Zero,
    Flat { number: usize, offset: u64 },
    Sparse(Sparse),
}

/// Opens a VMDK, with its extents but without its parent.
pub(in crate::disk) fn open(file: File, opener: &mut Opener<'_>) -> Result<Opened, DiskError> {
    let mut magic = [0; 4];
    if size_of(&file)? >= 4 {
        read_exact(&file, &mut magic, 0)?;
    }
    let mut disk = Vmdk {
        size_bytes: 0,
        extents: Vec::new(),
        files: Vec::new(),
        pages: Pages::default(),
        unpacker: Unpacker::new(Codec::Zlib),
    };
    let mut left_behind = Vec::new();
    let descriptor = if magic == MAGIC {
        let header = Header::read(&file)?;
        let descriptor = embedded(&file, &header)?;
        if !header.was_closed {
            left_behind.push(LeftBehind::NotClosed);
        }
        disk.add_sparse(file, header)?;
        descriptor
    } else {
        let descriptor = separate(&file)?;
        for extent in &descriptor.extents {
            disk.add(extent, opener)?;
        }
        descriptor
    };
    let behind = descriptor.parent.map(|name| Behind {
        role: Role::Parent,
        name,
        format: None,
    });
    Ok(Opened {
        format: Format::Vmdk,
        layer: Box::new(disk),
        left_behind,
        behind,
    })
}

/// The descriptor in the only extent of a disk.
fn embedded(file: &File, header: &Header) -> Result<Descriptor, DiskError> {
    let Some((offset, length)) = header.descriptor else {
        return Err(unsupported(
            "one extent without the descriptor that names all of them",
        ));
    };
    let descriptor = parse(file, offset, length)?;
    let is_alone = matches!(
        &descriptor.extents[..],
        [descriptor::Extent {
            content: descriptor::Content::Sparse { .. },
            ..
        }]
    );
    if descriptor.kind != Kind::Embedded || !is_alone {
        let what = "it names other extents than the one that it is in";
        return Err(corrupt("its descriptor", what));
    }
    Ok(descriptor)
}

/// A descriptor in a file of its own.
fn separate(file: &File) -> Result<Descriptor, DiskError> {
    let length = size_of(file)?;
    if length > DESCRIPTOR_BYTES_MAX {
        let what = format!("a descriptor of {length} bytes");
        return Err(limit(what, DESCRIPTOR_BYTES_MAX));
    }
    parse(file, 0, length)
}

fn parse(file: &File, offset: u64, length: u64) -> Result<Descriptor, DiskError> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    read_exact(file, &mut bytes, offset)?;
    Descriptor::parse(&bytes)
}

impl Vmdk {
    fn add(
        &mut self,
        extent: &descriptor::Extent,
        opener: &mut Opener<'_>,
    ) -> Result<(), DiskError> {
        let length = extent.size_bytes;
        let (name, offset) = match &extent.content {
            descriptor::Content::Zero => return self.push(length, Content::Zero),
            descriptor::Content::Flat { name, offset } => (name, Some(*offset)),
            descriptor::Content::Sparse { name } => (name, None),
        };
        let file = opener.open(Role::Extent, name)?;
        let added = match offset {
            Some(offset) => self.add_flat(file, offset, length),
            None => Header::read(&file).and_then(|header| {
                if header.is_compressed {
                    return Err(unsupported("a compressed extent beside others"));
                }
                if header.size_bytes != length {
                    let what = format!("it has {} bytes instead of {length}", header.size_bytes);
                    return Err(corrupt("its header", what));
                }
                self.add_sparse(file, header)
            }),
        };
        added.map_err(|source| DiskError::Within {
            role: Role::Extent,
            name: name.escape_debug().to_string(),
            source: Box::new(source),
        })
    }

    fn add_flat(&mut self, file: File, offset: u64, length: u64) -> Result<(), DiskError> {
        let file_bytes = size_of(&file)?;
        if offset
            .checked_add(length)
            .is_none_or(|end| end > file_bytes)
        {
            let what = format!("{length} bytes at byte {offset} end behind the file");
            return Err(corrupt("its extent", what));
        }
        let number = self.files.len();
        self.files.push(file);
        self.push(length, Content::Flat { number, offset })
    }

    fn add_sparse(&mut self, file: File, header: Header) -> Result<(), DiskError> {
        let number = self.files.len();
        let length = header.size_bytes;
        let sparse = Sparse { header, number };
        sparse.check(Access {
            file: &file,
            pages: &self.pages,
        })?;
        self.files.push(file);
        self.push(length, Content::Sparse(sparse))
    }

    fn push(&mut self, length: u64, content: Content) -> Result<(), DiskError> {
        let end = self.size_bytes.checked_add(length);
        let end = end.filter(|end| i64::try_from(*end).is_ok());
        let end = end.ok_or_else(|| corrupt("its extents", "together they are too large"))?;
        if length > 0 {
            self.extents.push(Extent {
                first_byte: self.size_bytes,
                length,
                content,
            });
        }
        self.size_bytes = end;
        Ok(())
    }

    /// The extent that has a byte, and its own offset there.
    fn extent(&self, offset: u64) -> Result<(&Extent, u64), DiskError> {
        let next = self
            .extents
            .partition_point(|extent| extent.first_byte <= offset);
        let extent = next
            .checked_sub(1)
            .and_then(|index| self.extents.get(index));
        let outside = || DiskError::Outside {
            offset,
            length: 1,
            size_bytes: self.size_bytes,
        };
        let extent = extent.ok_or_else(outside)?;
        Ok((extent, offset - extent.first_byte))
    }

    fn file(&self, number: usize) -> Result<&File, DiskError> {
        let file = self.files.get(number);
        file.ok_or_else(|| corrupt("its extents", "one has no file"))
    }

    fn access(&self, number: usize) -> Result<Access<'_>, DiskError> {
        Ok(Access {
            file: self.file(number)?,
            pages: &self.pages,
        })
    }
}

impl Layer for Vmdk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn run_at(&self, offset: u64, length: u64) -> Result<Run, DiskError> {
        let (extent, inside) = self.extent(offset)?;
        let length = length.min(extent.length - inside);
        let run = |length, place| Run {
            offset,
            length,
            place,
        };
        match &extent.content {
            Content::Zero => Ok(run(length, Place::Zero)),
            Content::Sparse(sparse) => {
                let found = sparse.run_at(self.access(sparse.number)?, inside, length)?;
                Ok(run(found.length, found.place))
            }
            Content::Flat { number, offset } => {
                let at = offset + inside;
                let (is_hole, length) = plain_run(self.file(*number)?, at, length)?;
                let place = Place::Plain {
                    file: *number,
                    offset: at,
                };
                Ok(run(length, if is_hole { Place::Zero } else { place }))
            }
        }
    }

    fn read(&self, run: &Run, buffer: &mut [u8]) -> Result<(), DiskError> {
        match run.place {
            Place::Plain { file, offset } => read_exact(self.file(file)?, buffer, offset),
            Place::Packed { at, .. } => {
                let (extent, inside) = self.extent(run.offset)?;
                let Content::Sparse(sparse) = &extent.content else {
                    return Err(corrupt("its extents", "one is not what it was"));
                };
                let access = self.access(sparse.number)?;
                sparse.read_packed(access, &self.unpacker, at, inside, buffer)
            }
            Place::Absent | Place::Zero => {
                buffer.fill(0);
                Ok(())
            }
        }
    }
}

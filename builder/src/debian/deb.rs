//! A .deb file: an `ar` archive of `debian-binary`, `control.tar.*` and `data.tar.*` (deb(5)).
//!
//! The control files are small and read into memory; the data member is decompressed once into the
//! store, as a plain tar that a tree can point into.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use coop_image::compress;
use coop_image::tar::{self, Entries, EntryKind, TarError};
use coop_image::tree::Timestamp;
use coop_runtime::event::{Event, Observer, Unit};
use rayon::prelude::*;

use crate::debian::deb822::{Deb822Error, Stanzas};
use crate::debian::suite::SelectedPackage;
use crate::digest::Digest;
use crate::fetch::{FetchError, Fetcher};
use crate::store::{DerivedKey, Store, StoreError};

const AR_MAGIC: &[u8; 8] = b"!<arch>\n";
const AR_HEADER_BYTES: usize = 60;
/// The most `ar` members; a .deb has three, and unknown ones begin with an underscore.
const MEMBERS_MAX: usize = 16;
/// The most bytes of all control files of one package, decompressed.
const CONTROL_BYTES_MAX: u64 = 64 << 20;
/// The most control files of one package.
const CONTROL_FILES_MAX: usize = 1000;
/// The most bytes of a package's files (64 GiB), and how often more than packed.
const DATA_LIMITS: compress::Limits = compress::Limits {
    output_bytes: 1 << 36,
    ratio: 10_000,
};
/// What the store calls the plain data member.
const DATA_KIND: &str = "deb-data-1";

/// Why a .deb cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// It could not be downloaded.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The cache folder fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is no .deb, or one of a version that coop does not read: the archive's fault.
    #[error("package '{package}' is not a .deb file that coop reads: {problem}")]
    Format {
        /// The package.
        package: String,
        /// What is wrong.
        problem: String,
    },
    /// A member cannot be read or decompressed.
    #[error("package '{package}' cannot be read: {source}")]
    Io {
        /// The package.
        package: String,
        /// What the operating system or the decompressor says.
        source: io::Error,
    },
    /// A member is no tar archive.
    #[error("package '{package}': {source}")]
    Tar {
        /// The package.
        package: String,
        /// What is wrong.
        source: TarError,
    },
    /// The control file is no control stanza.
    #[error("package '{package}' has an invalid control file: {source}")]
    Control {
        /// The package.
        package: String,
        /// Where.
        source: Deb822Error,
    },
    /// The control file speaks of another package than the archive's index.
    #[error(
        "package '{package}' says in its control file that its {field} is '{found}', not '{expected}'"
    )]
    Other {
        /// The package.
        package: String,
        /// The field.
        field: &'static str,
        /// What the control file says.
        found: String,
        /// What the index says.
        expected: String,
    },
}

/// One control file, such as `postinst`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// Its content.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u16,
    /// When it was last changed.
    pub modified: Timestamp,
}

/// A package's content, ready to be put into a tree.
#[derive(Clone, Debug)]
pub struct Deb {
    /// Which package.
    pub package: SelectedPackage,
    /// The control files by name; `control` is always there.
    pub control: BTreeMap<String, ControlFile>,
    /// The fields of `control` in their order.
    pub fields: Vec<(String, String)>,
    /// The data member as a plain tar archive.
    pub data: Arc<File>,
    /// The .deb itself.
    pub file: Arc<File>,
}

impl Deb {
    /// A field of the control file; names are the same in any case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        field_of(&self.fields, name)
    }

    /// A control file as text; what is not UTF-8 becomes U+FFFD.
    #[must_use]
    pub fn control_text(&self, name: &str) -> Option<String> {
        let file = self.control.get(name)?;
        Some(String::from_utf8_lossy(&file.bytes).into_owned())
    }

    /// Whether several architectures of it may be installed together, so that its database files
    /// carry the architecture in their names.
    #[must_use]
    pub fn is_multi_arch_same(&self) -> bool {
        self.field("Multi-Arch") == Some("same")
    }

    /// The name under which dpkg keeps it: `libc6:amd64`, `bash`.
    #[must_use]
    pub fn database_name(&self) -> String {
        match self.is_multi_arch_same() {
            true => format!("{}:{}", self.package.name, self.package.architecture),
            false => self.package.name.clone(),
        }
    }
}

/// Brings packages into the store and opens them, in their order.
///
/// # Errors
/// [`DebError`] of the first package that fails.
pub fn fetch_debs(
    fetcher: &Fetcher,
    packages: &[SelectedPackage],
    observer: &dyn Observer,
) -> Result<Vec<Deb>, DebError> {
    const TASK: &str = "unpack packages";
    let downloads: Vec<_> = packages
        .iter()
        .map(|package| package.download.clone())
        .collect();
    let files = fetcher.fetch(&downloads, "download packages", observer)?;
    let started = Instant::now();
    observer.event(&Event::TaskStarted {
        task: TASK,
        total: u64::try_from(packages.len()).ok(),
        unit: Unit::Items,
    });
    let done = AtomicU64::new(0);
    let open = |(package, file): (&SelectedPackage, fs_err::File)| {
        if observer.is_cancelled() {
            return Err(FetchError::Cancelled(package.download.url.clone()).into());
        }
        let deb = open_deb(fetcher.store(), package, file.into_file());
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        observer.event(&Event::TaskProgress { task: TASK, done });
        deb
    };
    let debs = packages.par_iter().zip(files).map(open).collect();
    observer.event(&Event::TaskFinished {
        task: TASK,
        elapsed: started.elapsed(),
    });
    debs
}

/// Opens a .deb that was verified.
///
/// # Errors
/// [`DebError`].
pub fn open_deb(store: &Store, package: &SelectedPackage, file: File) -> Result<Deb, DebError> {
    let named = Named(&package.name);
    let (control_member, data_member) = find_members(&file, named)?;
    let control = read_control(member_reader(&file, &control_member), named)?;
    let fields = read_fields(&control, named)?;
    check_is(package, &fields)?;
    let data = open_data(store, &file, &data_member, package.download.digest, named)?;
    Ok(Deb {
        package: package.clone(),
        control,
        fields,
        data: Arc::new(data),
        file: Arc::new(file),
    })
}

/// The fields of a .deb's control file in their order; `name` is for messages.
///
/// # Errors
/// [`DebError`].
pub(super) fn control_fields(name: &str, file: &File) -> Result<Vec<(String, String)>, DebError> {
    let named = Named(name);
    let (control_member, _) = find_members(file, named)?;
    read_fields(
        &read_control(member_reader(file, &control_member), named)?,
        named,
    )
}

/// The plain data member of a .deb that was verified, as a stream: for packages whose files are
/// read once, so that the store need not hold them unpacked.
///
/// # Errors
/// [`DebError`]; damage further on comes as an error of the reader.
pub fn data_stream(
    package: &SelectedPackage,
    file: File,
) -> Result<impl Read + Send + use<>, DebError> {
    let named = Named(&package.name);
    let (control_member, data_member) = find_members(&file, named)?;
    let control = read_control(member_reader(&file, &control_member), named)?;
    check_is(package, &read_fields(&control, named)?)?;
    let packed = MemberReader {
        file,
        offset: data_member.offset,
        left: data_member.size,
    };
    let (_, plain) = compress::decompress(packed, DATA_LIMITS).map_err(|error| named.io(error))?;
    Ok(plain)
}

/// The members `control.tar*` and `data.tar*`.
fn find_members(file: &File, named: Named<'_>) -> Result<(Member, Member), DebError> {
    let mut members = read_members(file).map_err(|problem| named.format(problem))?;
    let mut find = |stem: &str| {
        let found = members.iter().position(|m| m.name.starts_with(stem));
        let found = found.map(|index| members.remove(index));
        found.ok_or_else(|| named.format(format!("it has no {stem} member")))
    };
    Ok((find("control.tar")?, find("data.tar")?))
}

/// Whether the control file speaks of the package that the archive's index means.
fn check_is(package: &SelectedPackage, fields: &[(String, String)]) -> Result<(), DebError> {
    let expected = [
        ("Package", &package.name),
        ("Version", &package.version),
        ("Architecture", &package.architecture),
    ];
    for (field, expected) in expected {
        let found = field_of(fields, field).unwrap_or_default();
        if found != expected {
            return Err(DebError::Other {
                package: package.name.clone(),
                field,
                found: found.to_owned(),
                expected: expected.clone(),
            });
        }
    }
    Ok(())
}

/// A field by its name; names are the same in any case.
fn field_of<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let field = fields
        .iter()
        .find(|(other, _)| other.eq_ignore_ascii_case(name))?;
    Some(&field.1)
}

/// Makes errors that name the package.
#[derive(Clone, Copy)]
struct Named<'a>(&'a str);

impl Named<'_> {
    fn format(self, problem: impl Into<String>) -> DebError {
        DebError::Format {
            package: self.0.to_owned(),
            problem: problem.into(),
        }
    }

    fn io(self, source: io::Error) -> DebError {
        DebError::Io {
            package: self.0.to_owned(),
            source,
        }
    }

    fn tar(self, source: TarError) -> DebError {
        DebError::Tar {
            package: self.0.to_owned(),
            source,
        }
    }
}

/// A member of the `ar` archive.
#[derive(Debug, PartialEq, Eq)]
struct Member {
    name: String,
    offset: u64,
    size: u64,
}

/// Reads the member table and checks the format's version.
fn read_members(file: &File) -> Result<Vec<Member>, String> {
    let io = |error: io::Error| error.to_string();
    let mut file = file;
    let length = file.seek(SeekFrom::End(0)).map_err(io)?;
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut magic = [0; AR_MAGIC.len()];
    file.read_exact(&mut magic).map_err(io)?;
    if magic != *AR_MAGIC {
        return Err("it does not begin as an ar archive".to_owned());
    }
    let mut members = Vec::new();
    let mut offset = AR_MAGIC.len() as u64;
    while offset < length {
        if members.len() >= MEMBERS_MAX {
            return Err(format!("it has more than {MEMBERS_MAX} members"));
        }
        let mut header = [0; AR_HEADER_BYTES];
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
        file.read_exact(&mut header).map_err(io)?;
        let member = parse_member(&header, offset + AR_HEADER_BYTES as u64, length);
        let member = member.ok_or_else(|| format!("its member at byte {offset} is damaged"))?;
        // Members begin at even offsets.
        offset = (member.offset + member.size).next_multiple_of(2);
        members.push(member);
    }
    check_version(file, members.first())?;
    Ok(members)
}

fn parse_member(header: &[u8; AR_HEADER_BYTES], offset: u64, length: u64) -> Option<Member> {
    let text = std::str::from_utf8(header).ok()?;
    let name = text.get(..16)?.trim_end().trim_end_matches('/').to_owned();
    let digits = text.get(48..58)?.trim_end();
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let size: u64 = digits.parse().ok()?;
    let fits = offset.checked_add(size).is_some_and(|end| end <= length);
    (is_number && text.ends_with("`\n") && fits).then_some(Member { name, offset, size })
}

fn check_version(file: &File, first: Option<&Member>) -> Result<(), String> {
    let is_version = |member: &&Member| member.name == "debian-binary" && member.size <= 100;
    let member = first
        .filter(is_version)
        .ok_or("its first member is not debian-binary")?;
    let mut text = String::new();
    member_reader(file, member)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    match text.starts_with("2.") {
        true => Ok(()),
        false => Err(format!("it has the format version '{}'", text.trim())),
    }
}

/// Reads a member without moving the file's own position.
fn member_reader<'a>(file: &'a File, member: &Member) -> impl Read + use<'a> {
    MemberReader {
        file,
        offset: member.offset,
        left: member.size,
    }
}

struct MemberReader<F> {
    file: F,
    offset: u64,
    left: u64,
}

impl<F: Borrow<File>> Read for MemberReader<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = std::os::unix::fs::FileExt::read_at(
            self.file.borrow(),
            &mut buffer[..most],
            self.offset,
        )?;
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

fn read_control(
    packed: impl Read + Send,
    named: Named<'_>,
) -> Result<BTreeMap<String, ControlFile>, DebError> {
    let limits = compress::Limits {
        output_bytes: CONTROL_BYTES_MAX,
        ..compress::Limits::default()
    };
    let (_, plain) = compress::decompress(packed, limits).map_err(|error| named.io(error))?;
    let mut entries = Entries::stream(plain, tar::Limits::default());
    let mut control = BTreeMap::new();
    while let Some(entry) = entries.next_entry().map_err(|error| named.tar(error))? {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let name = path.strip_prefix("./").unwrap_or(&path);
        let is_root = matches!(name, "" | "." | "/");
        if is_root && entry.kind == EntryKind::Directory {
            continue;
        }
        let plain_name = name
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/');
        let EntryKind::File(_) = entry.kind else {
            return Err(named.format(format!("its control member '{name}' is not a file")));
        };
        if !plain_name || control.len() >= CONTROL_FILES_MAX {
            return Err(named.format(format!("its control member '{name}' is not expected")));
        }
        let mut bytes = Vec::new();
        entries
            .content()
            .read_to_end(&mut bytes)
            .map_err(|error| named.io(error))?;
        let file = ControlFile {
            bytes,
            mode: entry.metadata.mode,
            modified: entry.metadata.times.modified,
        };
        control.insert(name.to_owned(), file);
    }
    Ok(control)
}

fn read_fields(
    control: &BTreeMap<String, ControlFile>,
    named: Named<'_>,
) -> Result<Vec<(String, String)>, DebError> {
    let file = control
        .get("control")
        .ok_or_else(|| named.format("it has no control file"))?;
    let text = std::str::from_utf8(&file.bytes)
        .map_err(|_| named.format("its control file is not UTF-8"))?;
    let stanza = Stanzas::new(text)
        .next()
        .transpose()
        .map_err(|source| DebError::Control {
            package: named.0.to_owned(),
            source,
        })?;
    let fields = stanza.unwrap_or_default().fields.into_iter();
    Ok(fields
        .map(|field| (field.name.to_owned(), field.value.to_owned()))
        .collect())
}

fn open_data(
    store: &Store,
    deb: &File,
    member: &Member,
    digest: Digest,
    named: Named<'_>,
) -> Result<File, DebError> {
    let key = DerivedKey {
        kind: DATA_KIND,
        input: digest,
    };
    if let Some(file) = store.derived(key)? {
        return Ok(file.into_file());
    }
    let packed = member_reader(deb, member);
    let (_, mut plain) =
        compress::decompress(packed, DATA_LIMITS).map_err(|error| named.io(error))?;
    let mut temp = store.temp_file()?;
    let mut writer = BufWriter::with_capacity(1 << 18, temp.as_file_mut());
    copy(&mut plain, &mut writer, store, named)?;
    writer.flush().map_err(|error| store.explain(error))?;
    drop(writer);
    Ok(store.publish_derived(temp, key)?.into_file())
}

/// Hashes the plain data member of a .deb, if the store has it; a damaged one is set aside.
///
/// # Errors
/// What the file system says.
pub fn is_data_whole(store: &Store, deb: Digest) -> Result<bool, StoreError> {
    store.is_derived_whole(DerivedKey {
        kind: DATA_KIND,
        input: deb,
    })
}

/// Copies, telling errors of the package from errors of the store.
fn copy(
    plain: &mut dyn Read,
    writer: &mut dyn Write,
    store: &Store,
    named: Named<'_>,
) -> Result<(), DebError> {
    let mut buffer = vec![0; 1 << 18];
    loop {
        match plain.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => writer
                .write_all(&buffer[..count])
                .map_err(|error| store.explain(error))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(named.io(error)),
        }
    }
}

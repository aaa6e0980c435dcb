//! Opens the file or files of a model, and gives out the tensors' bytes.
//!
//! The one place where files are mapped. Weights are read in place: a model's memory is its file.
#![allow(unsafe_code, reason = "mapping a file is unsafe; see `map`")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use crate::gguf::{ByteOrder, Gguf, Metadata, TensorInfo, split, swap_bytes};
use crate::{Error, Result};

/// How to open a model's files.
///
/// By default files are mapped: opening takes milliseconds, the memory is shared with other processes and given
/// back under pressure. The hazard: **if another process truncates the file while it is mapped, the next read of
/// a lost page ends this process** (`SIGBUS` on Unix), and if another process writes to it, the weights change.
/// Replacing the file by renaming another over it, as download tools do, is harmless. Where files may be
/// truncated, use [`OpenOptions::copy`].
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct OpenOptions {
    copy: bool,
    populate: bool,
    incomplete: bool,
}

impl OpenOptions {
    /// Maps, and reads pages as they are needed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the files into memory of this process instead of mapping them, so that whatever happens to the files
    /// later has no effect. Costs the time to read them and as much memory as they are large.
    pub fn copy(mut self, copy: bool) -> Self {
        self.copy = copy;
        self
    }

    /// Brings all pages of mapped files into memory while opening (`MADV_POPULATE_READ` where there is Linux 5.14
    /// or later, else a hint to read ahead), so that the first pass over the weights need not wait for the disk.
    /// Where the system cannot do it, nothing happens.
    pub fn populate(mut self, populate: bool) -> Self {
        self.populate = populate;
        self
    }

    /// Takes files whose end is not there yet, as while they are fetched: the header must be whole. Tensors that are not there
    /// are described by [`ModelFile::infos`]; a model cannot run on them.
    pub fn incomplete(mut self, incomplete: bool) -> Self {
        self.incomplete = incomplete;
        self
    }

    /// Opens the file at `path` and, where it is one part of a split file, all other parts.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NotAFile`], [`Error::EmptyFile`], [`Error::SplitName`], [`Error::SplitMissing`];
    /// what is wrong inside a file is told by an [`Error::InFile`] with its path.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<ModelFile> {
        let path = path.as_ref();
        let given = self.part(path)?;
        let count = split::count(&given.gguf.metadata).map_err(|error| error.in_file(path))?;
        if count == 1 {
            return ModelFile::from_parts(vec![given]);
        }
        let name = split::PartName::parse(path)
            .filter(|name| name.count == count)
            .ok_or_else(|| Error::SplitName { path: path.to_owned(), count })?;
        let missing: Vec<PathBuf> = name.paths().filter(|path| !path.exists()).collect();
        if !missing.is_empty() {
            return Err(Error::SplitMissing { missing, count });
        }
        let mut given = Some(given);
        let mut parts = Vec::new();
        for number in 0..count {
            let own = if number == name.number { given.take() } else { None };
            parts.push(match own {
                Some(part) => part,
                None => self.part(&name.path(number))?,
            });
        }
        ModelFile::from_parts(parts)
    }

    fn part(&self, path: &Path) -> Result<Part> {
        let bytes = self.bytes(path)?;
        Part::parse(bytes, Some(path), self.incomplete).map_err(|error| error.in_file(path))
    }

    fn bytes(&self, path: &Path) -> Result<FileBytes> {
        let failed = |source| Error::Io { path: path.to_owned(), source };
        // Asked before opening: opening a pipe would wait for its other end.
        let about = fs::metadata(path).map_err(failed)?;
        if !about.is_file() {
            let found = if about.is_dir() { "a folder" } else { "neither a file nor a folder" };
            return Err(Error::NotAFile { path: path.to_owned(), found });
        }
        if about.len() == 0 {
            return Err(Error::EmptyFile { path: path.to_owned() });
        }
        let mut file = File::open(path).map_err(failed)?;
        if self.copy {
            return read_all(&mut file, about.len()).map(FileBytes::from).map_err(failed);
        }
        let map = map(&file).map_err(failed)?;
        ask_for_large_pages(&map);
        if self.populate {
            populate(&map);
        }
        Ok(FileBytes(Backing::Mapped(map)))
    }
}

fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the mapping is only ever read, and lives as long as each slice of it. Another process may change the
    // file below it: the header's strings and numbers are copied before they are checked, and code that reads
    // weights takes any bytes for valid and never uses one as an index unchecked. Truncation, which ends the
    // process, is documented at `OpenOptions` together with the way out.
    unsafe { Mmap::map(file) }
}

fn read_all(file: &mut File, expected: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let expected = usize::try_from(expected).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.try_reserve_exact(expected).map_err(|_| io::ErrorKind::OutOfMemory)?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Has what is read from the disk now come in large pages, where the file system has them: weights are then read from memory
/// up to a half faster. What is in memory already stays as it is.
#[cfg(target_os = "linux")]
fn ask_for_large_pages(map: &Mmap) {
    if let Err(error) = map.advise(memmap2::Advice::HugePage) {
        tracing::debug!(%error, "the system has no large pages for files");
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages(_map: &Mmap) {}

/// Asks for the pages of `map`; a refusal costs only speed.
#[cfg(unix)]
fn populate(map: &Mmap) {
    #[cfg(target_os = "linux")]
    let asked = map.advise(memmap2::Advice::PopulateRead).or_else(|_| map.advise(memmap2::Advice::WillNeed));
    #[cfg(not(target_os = "linux"))]
    let asked = map.advise(memmap2::Advice::WillNeed);
    if let Err(error) = asked {
        tracing::debug!(%error, "the system does not read the file ahead");
    }
}

#[cfg(not(unix))]
fn populate(_map: &Mmap) {}

/// The bytes of a file: from memory that the caller gives ([`ModelFile::from_bytes`]), or mapped.
#[derive(Debug)]
pub struct FileBytes(Backing);

#[derive(Debug)]
enum Backing {
    Mapped(Mmap),
    Owned(Vec<u8>),
    Shared(Arc<[u8]>),
    Static(&'static [u8]),
}

impl From<Vec<u8>> for FileBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Backing::Owned(bytes))
    }
}

impl From<Arc<[u8]>> for FileBytes {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self(Backing::Shared(bytes))
    }
}

impl From<&'static [u8]> for FileBytes {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Backing::Static(bytes))
    }
}

impl<const N: usize> From<&'static [u8; N]> for FileBytes {
    fn from(bytes: &'static [u8; N]) -> Self {
        Self(Backing::Static(bytes))
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Backing::Mapped(map) => map,
            Backing::Owned(bytes) => bytes,
            Backing::Shared(bytes) => bytes,
            Backing::Static(bytes) => bytes,
        }
    }
}

/// One file and its description.
#[derive(Debug)]
struct Part {
    path: Option<PathBuf>,
    bytes: FileBytes,
    gguf: Gguf,
}

impl Part {
    /// Parses `bytes`; those of a big-endian file are copied and their tensors made little-endian.
    fn parse(mut bytes: FileBytes, path: Option<&Path>, incomplete: bool) -> Result<Self> {
        let gguf = if incomplete { Gguf::parse_header(&bytes)? } else { Gguf::parse(&bytes)? };
        if gguf.byte_order == ByteOrder::Big {
            let mut swapped = match bytes.0 {
                Backing::Owned(bytes) => bytes,
                _ => bytes.to_vec(),
            };
            for tensor in &gguf.tensors {
                if let Some(data) = place(tensor).and_then(|place| swapped.get_mut(place)) {
                    swap_bytes(tensor, data)?;
                }
            }
            bytes = swapped.into();
        }
        Ok(Self { path: path.map(Path::to_owned), bytes, gguf })
    }
}

/// Where a tensor's bytes lie, as an index.
fn place(tensor: &TensorInfo) -> Option<std::ops::Range<usize>> {
    Some(tensor.range.start.try_into().ok()?..tensor.range.end.try_into().ok()?)
}

/// One tensor: what the file says of it, and its bytes.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// Name, shape and type.
    pub info: &'a TensorInfo,
    /// The weights: [`TensorInfo::bytes`] bytes, rows one after the other, little-endian.
    pub bytes: &'a [u8],
}

/// A tensor that keeps its file open: what a model holds of its weights. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TensorHandle {
    file: ModelFile,
    part: usize,
    index: usize,
}

impl TensorHandle {
    /// The tensor's description and bytes.
    pub fn view(&self) -> Option<TensorView<'_>> {
        self.file.at(self.part, self.index)
    }

    /// Whether the bytes are part of a mapped file.
    pub fn is_mapped(&self) -> bool {
        let part = self.file.0.parts.get(self.part);
        part.is_some_and(|part| matches!(part.bytes.0, Backing::Mapped(_)))
    }
}

/// The open file, or files, of one model.
///
/// Clones share everything, and all may be used from any thread at once.
#[derive(Clone, Debug)]
pub struct ModelFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// At least one.
    parts: Vec<Part>,
    /// Part and place in its table, by name.
    index: HashMap<String, (usize, usize)>,
}

impl ModelFile {
    /// Opens and maps the file at `path`, and with it all parts where it is one of several.
    ///
    /// # Errors
    /// See [`OpenOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        OpenOptions::new().open(path)
    }

    /// Takes a whole file in memory; static bytes are used in place.
    ///
    /// # Errors
    /// Those of [`Gguf::parse`]; [`Error::SplitMismatch`] where the file is only one of several parts.
    pub fn from_bytes(bytes: impl Into<FileBytes>) -> Result<Self> {
        Self::from_all_bytes([bytes.into()])
    }

    /// Takes the parts of a split file in memory, in order.
    ///
    /// # Errors
    /// Those of [`Gguf::parse`]; [`Error::SplitMismatch`] and others where the parts do not belong together;
    /// [`Error::NotGguf`] where there are none.
    pub fn from_all_bytes(parts: impl IntoIterator<Item = FileBytes>) -> Result<Self> {
        let parts: Result<Vec<Part>> =
            parts.into_iter().map(|bytes| Part::parse(bytes, None, false)).collect();
        Self::from_parts(parts?)
    }

    /// Joins the parts, after checking that they are one model's, and that all are there.
    fn from_parts(parts: Vec<Part>) -> Result<Self> {
        let Some(first) = parts.first() else {
            return Err(Error::NotGguf { found: Vec::new(), hint: "; there are no bytes at all" });
        };
        let count = split::count(&first.gguf.metadata)?;
        if usize::from(count) != parts.len() {
            let (expected, found) = (parts.len() as u64, count.into());
            return Err(Error::SplitMismatch { key: split::COUNT_KEY, expected, found });
        }
        if count > 1 {
            for (number, part) in (0..count).zip(&parts) {
                split::check_part(&part.gguf.metadata, number, count).map_err(|error| part.name(error))?;
            }
            split::check_tensors(parts.iter().map(|part| &part.gguf)).map_err(|error| first.name(error))?;
        }
        let mut index = HashMap::new();
        for (number, part) in parts.iter().enumerate() {
            for (place, tensor) in part.gguf.tensors.iter().enumerate() {
                if index.insert(tensor.name.clone(), (number, place)).is_some() {
                    return Err(part.name(Error::TensorDuplicate { tensor: tensor.name.clone() }));
                }
            }
        }
        tracing::debug!(parts = parts.len(), tensors = index.len(), "opened a model's file");
        Ok(Self(Arc::new(Inner { parts, index })))
    }

    /// The model's metadata: those of the first part.
    pub fn metadata(&self) -> &Metadata {
        &self.header().metadata
    }

    /// The description of the first part.
    pub fn header(&self) -> &Gguf {
        &self.first().gguf
    }

    #[allow(
        clippy::expect_used,
        reason = "`from_parts`, which alone makes a value, refuses to make one of none"
    )]
    fn first(&self) -> &Part {
        self.0.parts.first().expect("a model file has at least one part")
    }

    /// Each part's path, where it has one, with its description.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = (Option<&Path>, &Gguf)> {
        self.0.parts.iter().map(|part| (part.path.as_deref(), &part.gguf))
    }

    /// The path of the first part; `None` for bytes in memory.
    pub fn path(&self) -> Option<&Path> {
        self.first().path.as_deref()
    }

    /// Bytes of all parts together.
    pub fn file_bytes(&self) -> u64 {
        self.0.parts.iter().map(|part| part.bytes.len() as u64).sum()
    }

    /// Whether the weights are read from mapped files, not from memory of this process.
    pub fn is_mapped(&self) -> bool {
        self.0.parts.iter().any(|part| matches!(part.bytes.0, Backing::Mapped(_)))
    }

    /// How many tensors all parts hold.
    pub fn tensor_count(&self) -> usize {
        self.0.index.len()
    }

    /// The tensors of all parts, in the order of the files.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.0.parts.iter().enumerate().flat_map(move |(number, part)| {
            (0..part.gguf.tensors.len()).filter_map(move |index| self.at(number, index))
        })
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let &(part, index) = self.0.index.get(name)?;
        self.at(part, index)
    }

    /// The descriptions of the tensors of all parts, those of an [incomplete](OpenOptions::incomplete) file that are not there
    /// among them.
    pub fn infos(&self) -> impl Iterator<Item = &TensorInfo> {
        self.0.parts.iter().flat_map(|part| &part.gguf.tensors)
    }

    /// The description of the tensor called `name`, whether or not its bytes are there.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        let &(part, index) = self.0.index.get(name)?;
        self.0.parts.get(part)?.gguf.tensors.get(index)
    }

    /// Bytes of an [incomplete](OpenOptions::incomplete) file that are not there yet.
    pub fn missing_bytes(&self) -> u64 {
        let missing = |part: &Part| part.gguf.file_len().saturating_sub(part.bytes.len() as u64);
        self.0.parts.iter().map(missing).fold(0, u64::saturating_add)
    }

    /// The tensor called `name`, with a share in the file, to be kept.
    pub fn handle(&self, name: &str) -> Option<TensorHandle> {
        let &(part, index) = self.0.index.get(name)?;
        Some(TensorHandle { file: self.clone(), part, index })
    }

    fn at(&self, part: usize, index: usize) -> Option<TensorView<'_>> {
        let part = self.0.parts.get(part)?;
        let info = part.gguf.tensors.get(index)?;
        Some(TensorView { info, bytes: part.bytes.get(place(info)?)? })
    }
}

impl Part {
    /// Adds the part's path to `error`, where it has one.
    fn name(&self, error: Error) -> Error {
        match &self.path {
            Some(path) => error.in_file(path),
            None => error,
        }
    }
}

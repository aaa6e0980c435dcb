//! GGUF files as a whole: written, opened in one part and in several, and rewritten from the golden sets.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gristmill::Error;
use gristmill::gguf::{ByteOrder, Gguf, Metadata, Strings, Writer, split, swap_bytes};
use gristmill::model::file::{ModelFile, OpenOptions};
use gristmill_kernels::quant::GgmlType;

use crate::goldens;

/// A folder that is removed with the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gristmill-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A file with the tensors of `names`, each filled with its first letter.
fn toy(metadata: Metadata, names: &[&str]) -> Vec<u8> {
    let mut writer = Writer::new(metadata).unwrap();
    for name in names {
        writer.tensor(name, &[32, 2], GgmlType::Q8_0).unwrap();
    }
    let mut data = writer.start(Vec::new()).unwrap();
    for name in names {
        data.write(name, &[name.as_bytes()[0]; 68]).unwrap();
    }
    data.finish().unwrap()
}

/// The parts of a split file with three tensors, the first part without any.
fn parts() -> Vec<Vec<u8>> {
    [&[][..], &["a", "b"], &["c"]]
        .iter()
        .enumerate()
        .map(|(number, names)| {
            let mut metadata = Metadata::new();
            if number == 0 {
                metadata.set("general.architecture", "toy");
            }
            metadata.set(split::NUMBER_KEY, number as u16);
            metadata.set(split::COUNT_KEY, 3_u16);
            metadata.set(split::TENSORS_KEY, 3_i32);
            toy(metadata, names)
        })
        .collect()
}

fn part_names() -> [&'static str; 3] {
    ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"]
}

/// The error inside of an [`Error::InFile`], which must name `path`.
fn inside(error: Error, path: &Path) -> Error {
    match error {
        Error::InFile { path: at, source } if at == path => *source,
        other => panic!("expected an error in {}, found {other:?}", path.display()),
    }
}

#[test]
fn a_file_is_opened_mapped_copied_and_from_memory_alike() {
    let folder = Folder::new("alike");
    let bytes = toy(Metadata::new(), &["a", "b"]);
    let path = folder.put("m.gguf", &bytes);
    let from_static: &'static [u8] = bytes.clone().leak();
    let all = [
        (true, ModelFile::open(&path).unwrap()),
        (true, OpenOptions::new().populate(true).open(&path).unwrap()),
        (false, OpenOptions::new().copy(true).open(&path).unwrap()),
        (false, ModelFile::from_bytes(bytes.clone()).unwrap()),
        (false, ModelFile::from_bytes(Arc::<[u8]>::from(&bytes[..])).unwrap()),
        (false, ModelFile::from_bytes(from_static).unwrap()),
    ];
    for (mapped, file) in &all {
        assert_eq!(file.is_mapped(), *mapped);
        assert_eq!(file.file_bytes(), bytes.len() as u64);
        let names: Vec<_> = file.tensors().map(|tensor| tensor.info.name.clone()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(file.tensor("b").unwrap().bytes, [b'b'; 68]);
        assert!(file.tensor("c").is_none());
    }
    let in_place = all[5].1.tensor("a").unwrap().bytes.as_ptr_range();
    assert!(
        from_static.as_ptr_range().start <= in_place.start && in_place.end <= from_static.as_ptr_range().end
    );
}

#[test]
fn a_handle_keeps_the_file_open_on_any_thread() {
    let folder = Folder::new("handle");
    let path = folder.put("m.gguf", &toy(Metadata::new(), &["a"]));
    let file = ModelFile::open(path).unwrap();
    let handle = file.handle("a").unwrap();
    drop(file);
    let sum =
        std::thread::spawn(move || handle.view().unwrap().bytes.iter().map(|&b| u32::from(b)).sum::<u32>());
    assert_eq!(sum.join().unwrap(), 68 * u32::from(b'a'));
}

#[test]
fn a_copy_outlives_what_happens_to_the_file() {
    let folder = Folder::new("copy");
    let path = folder.put("m.gguf", &toy(Metadata::new(), &["a"]));
    let file = OpenOptions::new().copy(true).open(&path).unwrap();
    fs::write(&path, b"").unwrap();
    assert_eq!(file.tensor("a").unwrap().bytes, [b'a'; 68]);
}

#[test]
fn a_split_file_is_found_from_any_of_its_parts() {
    let folder = Folder::new("split");
    let parts = parts();
    let paths: Vec<_> =
        part_names().iter().zip(&parts).map(|(name, bytes)| folder.put(name, bytes)).collect();
    for path in &paths {
        let file = ModelFile::open(path).unwrap();
        assert_eq!(file.metadata().str("general.architecture").unwrap(), Some("toy"));
        assert_eq!((file.tensor_count(), file.parts().len(), file.path()), (3, 3, Some(&*paths[0])));
        for name in ["a", "b", "c"] {
            assert_eq!(file.tensor(name).unwrap().bytes, [name.as_bytes()[0]; 68]);
        }
    }
    let file = ModelFile::from_all_bytes(parts.into_iter().map(Into::into)).unwrap();
    assert_eq!(file.tensors().map(|tensor| tensor.bytes[0]).collect::<Vec<_>>(), b"abc");
}

#[test]
fn missing_parts_are_named() {
    let folder = Folder::new("missing");
    let [_, second, _] = part_names();
    let path = folder.put(second, &parts()[1]);
    match ModelFile::open(path).unwrap_err() {
        Error::SplitMissing { missing, count: 3 } => {
            assert_eq!(missing, [part_names()[0], part_names()[2]].map(|name| folder.0.join(name)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_part_under_another_name_is_refused() {
    let folder = Folder::new("renamed");
    for name in ["m.gguf", "m-00002-of-00004.gguf"] {
        let path = folder.put(name, &parts()[1]);
        let error = ModelFile::open(&path).unwrap_err();
        assert!(matches!(&error, Error::SplitName { path: at, count: 3 } if *at == path), "{error:?}");
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let folder = Folder::new("mixed");
    let parts = parts();
    let [first, second, third] = part_names();
    let path = folder.put(first, &parts[0]);
    let swapped = folder.put(second, &parts[2]);
    folder.put(third, &parts[1]);
    assert!(matches!(
        inside(ModelFile::open(&path).unwrap_err(), &swapped),
        Error::SplitMismatch { key: split::NUMBER_KEY, expected: 1, found: 2 }
    ));

    // The right number, but tensors that another part has too, or too few.
    for (names, twice) in [(&["a"][..], true), (&[], false)] {
        let mut metadata = Metadata::new();
        metadata.set(split::NUMBER_KEY, 2_u16);
        let third = folder.put(third, &toy(metadata, names));
        folder.put(second, &parts[1]);
        let error = ModelFile::open(&path).unwrap_err();
        if twice {
            assert!(matches!(inside(error, &third), Error::TensorDuplicate { tensor } if tensor == "a"));
        } else {
            let error = inside(error, &path);
            let Error::SplitMismatch { key, expected: 2, found: 3 } = error else { panic!("{error:?}") };
            assert_eq!(key, split::TENSORS_KEY);
        }
    }
}

#[test]
fn one_part_in_memory_is_not_a_model() {
    let error = ModelFile::from_bytes(parts().remove(0)).unwrap_err();
    assert!(
        matches!(error, Error::SplitMismatch { key: split::COUNT_KEY, expected: 1, found: 3 }),
        "{error:?}"
    );
}

#[test]
fn what_is_no_file_is_refused_with_its_path() {
    let folder = Folder::new("wrong");
    let error = ModelFile::open(folder.0.join("absent.gguf")).unwrap_err();
    assert!(
        matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound),
        "{error:?}"
    );
    assert!(error.to_string().contains("absent.gguf"), "{error}");
    assert!(matches!(ModelFile::open(&folder.0), Err(Error::NotAFile { found: "a folder", .. })));
    let empty = folder.put("empty.gguf", b"");
    assert!(matches!(ModelFile::open(&empty), Err(Error::EmptyFile { path }) if path == empty));
    let zip = folder.put("model.bin", b"PK\x03\x04 and so on");
    let error = ModelFile::open(&zip).unwrap_err();
    assert!(error.to_string().contains("PyTorch"), "{error}");
    assert!(matches!(inside(error, &zip), Error::NotGguf { .. }));
    let whole = toy(Metadata::new(), &["a"]);
    let cut = folder.put("cut.gguf", &whole[..whole.len() - 40]);
    assert!(matches!(inside(ModelFile::open(&cut).unwrap_err(), &cut), Error::TensorOutside { .. }));
}

#[test]
fn a_big_endian_file_reads_as_its_little_endian_twin() {
    let little = toy(Metadata::new(), &["a"]);
    let gguf = Gguf::parse(&little).unwrap();
    let tensor = &gguf.tensors[0];
    let mut weights: Vec<u8> = (0..68).collect();
    let expected = weights.clone();
    swap_bytes(tensor, &mut weights).unwrap();
    assert_ne!(weights, expected);
    for (ty, shape, good) in [(GgmlType::Q8_0, [32, 2], true), (GgmlType::IQ4_NL, [32, 2], false)] {
        let mut writer = Writer::new(Metadata::new()).unwrap().byte_order(ByteOrder::Big);
        writer.tensor("a", &shape, ty).unwrap();
        let mut data = writer.start(Vec::new()).unwrap();
        data.write("a", &weights[..2 * ty.block_bytes()]).unwrap();
        let file = ModelFile::from_bytes(data.finish().unwrap());
        if good {
            assert_eq!(file.unwrap().tensor("a").unwrap().bytes, expected);
        } else {
            assert!(matches!(file, Err(Error::BigEndianTensor { tensor, .. }) if tensor == "a"));
        }
    }
}

/// Writes a file anew from what was read of it.
fn rewrite(gguf: &Gguf, bytes: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(gguf.metadata.clone()).unwrap().version(gguf.version).unwrap();
    for tensor in &gguf.tensors {
        writer.tensor(&tensor.name, tensor.shape(), tensor.ty).unwrap();
    }
    let mut data = writer.start(Vec::new()).unwrap();
    for tensor in &gguf.tensors {
        let range = tensor.range.start as usize..tensor.range.end as usize;
        data.write(&tensor.name, &bytes[range]).unwrap();
    }
    data.finish().unwrap()
}

fn gguf_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gguf_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "gguf") {
            found.push(path);
        }
    }
}

#[test]
fn the_golden_files_are_read_and_written_anew_byte_for_byte() {
    let mut paths = Vec::new();
    for set in ["models", "parity", "tokenizers"] {
        let Some(folder) = goldens::folder(set) else { return };
        gguf_files(&folder, &mut paths);
    }
    assert!(paths.len() >= 40, "{paths:?}");
    let mut tensors = 0;
    for path in &paths {
        let file = ModelFile::open(path).unwrap();
        tensors += file.tensor_count();
        let bytes = fs::read(path).unwrap();
        let anew = rewrite(file.header(), &bytes);
        assert_eq!(&Gguf::parse(&anew).unwrap(), file.header(), "{}", path.display());
        assert!(anew == bytes, "{} differs", path.display());
    }
    println!("{} files, {tensors} tensors", paths.len());
}

/// Counts and vocabularies as gguf-py 0.19.0 (`GGUFReader`) reads them.
#[test]
fn the_golden_files_hold_what_gguf_py_reads() {
    let expected = [
        ("models/stories260K-f32.gguf", 47, 29, 14_496),
        ("models/tiny-instruct-q8_0.gguf", 57, 31, 64_128),
        ("parity/open/models/gpt_oss.mxfp4.gguf", 41, 35, 9_120),
        ("parity/open/quant/llama-TQ1_0.gguf", 21, 32, 7_712),
        ("tokenizers/ggml-vocab-llama-bpe.gguf", 0, 23, 7_818_140),
    ];
    for (name, tensors, keys, data_start) in expected {
        let (set, rest) = name.split_once('/').unwrap();
        let Some(folder) = goldens::folder(set) else { return };
        let file = ModelFile::open(folder.join(rest)).unwrap();
        let header = file.header();
        // gguf-py counts the version and the two counts among its fields.
        assert_eq!(
            (header.tensors.len(), header.metadata.len() + 3, header.data_start),
            (tensors, keys, data_start)
        );
    }
    let Some(folder) = goldens::folder("tokenizers") else { return };
    let file = ModelFile::open(folder.join("ggml-vocab-llama-bpe.gguf")).unwrap();
    let strings = |key| file.metadata().strings(key).unwrap().unwrap();
    let (tokens, merges): (&Strings, &Strings) =
        (strings("tokenizer.ggml.tokens"), strings("tokenizer.ggml.merges"));
    assert_eq!((tokens.len(), merges.len()), (128_256, 280_147));
    assert_eq!((tokens.get(0), merges.get(0)), (Some(&b"!"[..]), Some("Ġ Ġ".as_bytes())));
}
